"""Which Python runs inside the server, what it is like there, and what happens where it cannot start."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.builtins import BUILTIN
from tests.server.conftest import StartServer
from tests.server.harness import REPOSITORY, Server, write_plugin

NEEDED = ("pluggy", "msgspec", "cffi", "_cffi_backend", "prometheus_client")
MakeEnvironment = Callable[..., Path]

PROBE = """
import os, sys, threading
import _ctypes, _decimal, _sqlite3, _ssl, msgspec._core
from atlas_plugin import hookimpl

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/probe")
    def probe(request):
        return {
            "argv": sys.argv,
            "prefix": sys.prefix,
            "executable": sys.executable,
            "path": sys.path,
            "cwd": os.getcwd(),
            "isolated": sys.flags.isolated,
            "no_user_site": sys.flags.no_user_site,
            "ignore_environment": sys.flags.ignore_environment,
            "utf8_mode": sys.flags.utf8_mode,
            "safe_path": sys.flags.safe_path,
            "sqlite": _sqlite3.sqlite_version,
        }
"""


@pytest.fixture(scope="session")
def build_environment(server: Server) -> Path:
    """The environment that the server was built for."""
    return Path(server.get("/v1/atlas/status").json()["data"]["python"]["prefix"])


@pytest.fixture
def make_environment(build_environment: Path, tmp_path: Path) -> MakeEnvironment:
    """An environment without pip, with these modules beside the standard library."""

    def make(*modules: str, atlas: bool = True) -> Path:
        environment = tmp_path / "environment"
        python = build_environment / "bin/python"
        subprocess.run([python, "-m", "venv", "--without-pip", environment], check=True)
        [site_packages] = environment.glob("lib/python3*/site-packages")
        available = build_environment / site_packages.relative_to(environment)
        for module in modules:
            for found in available.glob(f"{module}*"):
                (site_packages / found.name).symlink_to(found)
        if atlas:
            (site_packages / "atlas.pth").write_text(str(REPOSITORY), encoding="utf-8")
        return environment

    return make


def assert_runs_without_python(server: Server, *reasons: str) -> None:
    [line] = [line for line in server.log.splitlines() if "Python could not start" in line]
    status = server.get("/v1/atlas/status")
    assert status.status_code == 200
    document = status.json()
    assert document["status"] == "degraded"
    [problem] = document["problems"]
    for reason in reasons:
        assert reason in line
        assert reason in problem
    assert document["data"]["initialized"] is True
    assert document["data"]["memory_persistence"] is False
    assert "python" not in document["data"]

    for answer in (
        server.get("/v1/atlas/plugins"),
        server.post("/v1/atlas/memory/load", {"context_id": "a"}),
        server.client.delete("/v1/atlas/x/anything"),
    ):
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert error.keys() == {"code", "message", "type", "timestamp"}
        assert (error["code"], error["type"]) == (503, "service_unavailable")
        assert error["message"] == problem

    completion = server.post("/completion", {"prompt": "a", "n_predict": 1, "atlas": {"session_id": "s"}})
    assert completion.status_code == 200
    atlas = completion.json()["atlas"]
    assert atlas["degraded"] is True
    assert "Python" in atlas["reason"]
    assert server.stop() == 0


def assert_does_not_start(directory: Path, options: list[str | Path], *reasons: str) -> None:
    server = Server([*options, "--atlas-require-python"], directory=directory)
    server.spawn()
    assert server.wait() == 1
    for reason in (*reasons, "--atlas-require-python is given: not starting the server"):
        assert server.logged(reason)
    assert "loading model" not in server.log
    assert "listening on" not in server.log


class TestEnvironmentsThatDoNotWork:
    def test_a_missing_directory(self, start_server: StartServer, tmp_path: Path) -> None:
        options: list[str | Path] = ["--atlas-python-home", tmp_path / "nowhere"]
        reasons = (
            "there is no bin/python in the Python environment",
            f"environment {tmp_path}/nowhere",
            "given by --atlas-python-home or ATLAS_PYTHON_HOME",
        )
        assert_runs_without_python(start_server(options), *reasons)
        assert_does_not_start(tmp_path, options, *reasons)

    def test_an_environment_of_another_version(
        self, start_server: StartServer, tmp_path: Path, build_environment: Path
    ) -> None:
        environment = tmp_path / "other"
        (environment / "bin").mkdir(parents=True)
        (environment / "bin/python").symlink_to(build_environment / "bin/python")
        (environment / "lib/python3.99").mkdir(parents=True)
        server = start_server(environment={"VIRTUAL_ENV": str(environment)})
        assert_runs_without_python(
            server,
            "is of another version than this build",
            f"environment {environment}",
            "given by VIRTUAL_ENV",
        )

    def test_an_environment_without_the_package(
        self, start_server: StartServer, tmp_path: Path, make_environment: MakeEnvironment
    ) -> None:
        environment = make_environment(atlas=False)
        reasons = ("No module named 'atlas_plugin'", "-m pip install", f"environment {environment}")
        assert_runs_without_python(start_server(["--atlas-python-home", environment]), *reasons)
        assert_does_not_start(tmp_path, ["--atlas-python-home", environment], *reasons)

    @pytest.mark.parametrize(
        ("modules", "reason"),
        [
            (("pluggy", "cffi", "_cffi_backend"), "No module named 'msgspec'"),
            (("msgspec", "cffi", "_cffi_backend"), "No module named 'pluggy'"),
            (("pluggy", "msgspec"), "No module named '_cffi_backend'"),
        ],
        ids=["msgspec", "pluggy", "cffi"],
    )
    def test_an_environment_without_a_dependency(
        self,
        start_server: StartServer,
        make_environment: MakeEnvironment,
        modules: tuple[str, ...],
        reason: str,
    ) -> None:
        environment = make_environment(*modules)
        server = start_server(environment={"ATLAS_PYTHON_HOME": str(environment)})
        assert_runs_without_python(server, reason, f"environment {environment}", "ATLAS_PYTHON_HOME")

    def test_an_environment_whose_site_customisation_exits(
        self, start_server: StartServer, make_environment: MakeEnvironment
    ) -> None:
        environment = make_environment(*NEEDED)
        [site_packages] = environment.glob("lib/python3*/site-packages")
        (site_packages / "sitecustomize.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
        server = start_server(["--atlas-python-home", environment])
        assert_runs_without_python(server, "site", f"environment {environment}")


class TestEnvironmentsThatWork:
    @pytest.mark.parametrize("by_flag", [True, False])
    def test_another_environment(
        self, start_server: StartServer, make_environment: MakeEnvironment, tmp_path: Path, by_flag: bool
    ) -> None:
        environment = make_environment(*NEEDED)
        if by_flag:
            # the flag wins over an activated environment
            options: list[str | Path] = ["--atlas-python-home", environment]
            server = start_server(options, {"VIRTUAL_ENV": str(tmp_path / "nowhere")})
        else:
            server = start_server(environment={"VIRTUAL_ENV": str(environment)})
        document = server.get("/v1/atlas/status").json()
        assert document["status"] == "healthy"
        assert document["data"]["python"]["prefix"] == str(environment)

    def test_empty_names_are_as_none(self, start_server: StartServer, build_environment: Path) -> None:
        server = start_server(environment={"VIRTUAL_ENV": "", "ATLAS_PYTHON_HOME": ""})
        python = server.get("/v1/atlas/status").json()["data"]["python"]
        assert python["prefix"] == str(build_environment)

    def test_what_plugins_find(
        self,
        start_server: StartServer,
        tmp_path: Path,
        build_environment: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        # neither PYTHON… variables nor modules that lie in the working directory may get in
        write_plugin(tmp_path, "raise RuntimeError('not this one')", "pluggy")
        server = start_server(
            ["--atlas-plugin", write_plugin(tmp_path, PROBE)],
            {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nonexistent", "PYTHONSTARTUP": "/nonexistent"},
        )
        found = server.get("/v1/atlas/x/probe").json()
        assert found["prefix"] == str(build_environment)
        assert Path(found["executable"]).parent == build_environment / "bin"
        assert found["argv"] == [""]
        assert found["cwd"] == str(tmp_path)
        assert not {"", ".", str(tmp_path)} & set(found["path"])
        for flag in ("isolated", "no_user_site", "ignore_environment", "utf8_mode", "safe_path"):
            assert found[flag] == 1, flag

    def test_standard_input_is_left_alone(self, tmp_path: Path) -> None:
        standard_input = tmp_path / "input"
        standard_input.write_text("nobody reads this\n", encoding="utf-8")
        server = Server(directory=tmp_path)
        try:
            with standard_input.open() as opened, server.log_path.open("ab") as log:
                server.process = subprocess.Popen(
                    server.command, env=server.environment, stdin=opened, stdout=log, stderr=log
                )
                server.wait_until(lambda: server.answers("/v1/atlas/status"))
                assert os.lseek(opened.fileno(), 0, os.SEEK_CUR) == 0
        finally:
            server.kill()
            server.client.close()


class TestSwitchedOff:
    def test_there_is_no_python_in_the_process(self, start_server: StartServer, server: Server) -> None:
        off = start_server(environment={"ATLAS_ENABLED": "0"})
        for library in ("libpython", "libatlas-python"):
            assert library in memory_map(server)
            assert library not in memory_map(off)
        assert "[ATLAS]" not in off.log

    def test_answers_are_those_of_stock(self, start_server: StartServer, stock: Server) -> None:
        off = start_server(["--no-atlas-enabled"])
        for path in ("/v1/atlas/status", "/v1/atlas", "/v1/atlas/memory/list"):
            ours, theirs = off.get(path), stock.get(path)
            assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)
            assert ours.headers["Content-Type"] == theirs.headers["Content-Type"]
        request = {"prompt": "a", "n_predict": 4, "temperature": 0, "atlas": {"memory_layers": "many"}}
        ours, theirs = off.post("/completion", request), stock.post("/completion", request)
        assert ours.status_code == theirs.status_code == 200
        assert ours.json().keys() == theirs.json().keys()
        assert ours.json()["content"] == theirs.json()["content"]


class TestPluginsThatFail:
    @pytest.mark.parametrize(
        ("source", "error"),
        [
            ("raise RuntimeError('no tea')", "RuntimeError: no tea"),
            ("def broken(:\n    pass", "SyntaxError: invalid syntax"),
            ("raise SystemExit(3)", "SystemExit: 3"),
            ("import sys\nsys.exit('bye')", "SystemExit: bye"),
            ("raise KeyboardInterrupt", "KeyboardInterrupt"),
            ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
            (
                "import atlas_plugin\n\n@atlas_plugin.hookimpl\ndef startup():\n    raise OSError('no disk')",
                "OSError: no disk",
            ),
        ],
    )
    def test_the_server_runs_without_it(
        self, start_server: StartServer, tmp_path: Path, source: str, error: str
    ) -> None:
        options: list[str | Path] = ["--atlas-plugin", write_plugin(tmp_path, source)]
        server = start_server(options)
        document = server.get("/v1/atlas/status").json()
        assert document["status"] == "degraded"
        assert document["data"]["plugins"] == {"active": len(BUILTIN), "failed": 1}
        assert document["problems"] == [f"plugin 'probe' failed: {error}"]

        listing = server.get("/v1/atlas/plugins")
        found: dict[str, Any] = listing.json()["data"]["plugins"][-1]
        assert (found["name"], found["state"], found["error"]) == ("probe", "failed", error)
        assert server.logged("Traceback")
        assert "Traceback" not in listing.text
        assert server.post("/completion", {"prompt": "a", "n_predict": 1}).status_code == 200
        assert server.stop() == 0

        assert_does_not_start(tmp_path, options, error)

    def test_one_that_nobody_named_does_not_stop_the_start(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        directory = tmp_path / "plugins"
        directory.mkdir()
        write_plugin(directory, "raise RuntimeError('no tea')")
        server = start_server(["--atlas-plugins-dir", directory, "--atlas-require-python"])
        assert server.get("/v1/atlas/status").json()["status"] == "degraded"


def memory_map(server: Server) -> str:
    assert server.process is not None
    return Path(f"/proc/{server.process.pid}/maps").read_text(encoding="ascii")
