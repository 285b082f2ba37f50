"""The component `atlas` as another project meets it: installed, moved, found by CMake and by pkg-config."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin.version import __version__

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
BUILD = REPOSITORY / "build"
MODEL = REPOSITORY / "models/demo-2m-f16.gguf"
EXAMPLES = REPOSITORY / "native/examples"
HTTPLIB = BUILD / "llama.cpp-source/vendor/cpp-httplib"
CMAKE = Path(sys.executable).with_name("cmake")

# Neither settings nor a Python environment come from where the tests run.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("ATLAS_") and name not in {"VIRTUAL_ENV", "LD_LIBRARY_PATH"}
}


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Installed:
    prefix: Path
    libraries: Path
    directory: Path

    @property
    def environment(self) -> Path:
        """Where the library looks for its Python environment."""
        return self.libraries / "atlas-python"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The component, installed below DESTDIR for one prefix and then moved to another."""
    assert (BUILD / "bin/libatlas.so").exists(), (
        "the library is missing; build it: cmake --build build --target atlas-api"
    )
    directory = tmp_path_factory.mktemp("outside")
    command = (CMAKE, "--install", BUILD, "--component", "atlas", "--prefix", "/opt/atlas")
    run(*command, cwd=directory, DESTDIR=str(directory / "stage"))
    prefix = directory / "moved"
    (directory / "stage/opt/atlas").rename(prefix)
    [library] = prefix.glob("**/libatlas.so")
    found = Installed(prefix, library.parent, directory)
    found.environment.symlink_to(sys.prefix, target_is_directory=True)
    return found


@pytest.fixture(scope="module")
def examples(installed: Installed) -> Path:
    """The examples, built as a project outside of the tree."""
    return build(installed, EXAMPLES, "atlas-examples", f"-DCPP_HTTPLIB_DIR={HTTPLIB}")


def build(installed: Installed, source: Path, target: str, *options: str) -> Path:
    directory = installed.directory / target
    ninja = f"-DCMAKE_MAKE_PROGRAM={Path(sys.executable).with_name('ninja')}"
    where = f"-DCMAKE_PREFIX_PATH={installed.prefix}"
    places: list[str | Path] = ["-S", source, "-B", directory]
    run(CMAKE, "-G", "Ninja", *places, ninja, where, *options, cwd=installed.directory)
    run(CMAKE, "--build", directory, "--target", target, cwd=installed.directory)
    return directory


def exported(installed: Installed, library: str) -> list[str]:
    listed = run("nm", "-DC", "--defined-only", installed.libraries / library, cwd=installed.directory)
    return [line.split(maxsplit=2)[2] for line in listed.splitlines()]


def text_of(answer: dict[str, Any]) -> str:
    text = answer["choices"][0]["text"]
    assert isinstance(text, str)
    return text


def test_what_is_installed(installed: Installed) -> None:
    headers = {path.name for path in (installed.prefix / "include/atlas").rglob("*") if path.is_file()}
    ours = {name for name in headers if name.startswith("atlas")}
    assert ours == {
        "atlas-config.hpp",
        "atlas-endpoints.hpp",
        "atlas-integration.hpp",
        "atlas-log.hpp",
        "atlas-memory-policy.hpp",
        "atlas-routes.def",
        "atlas-server.hpp",
        "atlas-settings.def",
    }
    assert {"llama.h", "ggml.h", "gguf.h", "json.hpp"} <= headers
    files = {path.name for path in installed.prefix.rglob("*")}
    assert "libvalkey.COPYING" in files  # its licence wants that
    assert not {name for name in files if name.startswith("llama-server")}
    for library in installed.libraries.glob("*.so"):
        # the build tree may be gone
        assert str(REPOSITORY) not in run("readelf", "-d", library, cwd=installed.directory)
    loaded = run("ldd", installed.libraries / "libatlas.so", cwd=installed.directory)
    assert "not found" not in loaded
    for line in loaded.splitlines():
        if "libllama" in line or "libggml" in line or "libmtmd" in line:
            assert str(installed.libraries) in line


def test_only_what_headers_declare_is_exported(installed: Installed) -> None:
    names = exported(installed, "libatlas.so")
    assert [name for name in names if not name.startswith(("atlas::", "ATLAS_"))] == []
    assert all("@@ATLAS_" in name for name in names if name.startswith("atlas::"))


def test_a_program_may_have_another_cpp_httplib(installed: Installed) -> None:
    for library in installed.libraries.glob("*.so"):
        assert [name for name in exported(installed, library.name) if "httplib::" in name] == []


def test_snippets_of_the_integration_guide(installed: Installed, examples: Path) -> None:
    built = build(
        installed,
        HERE / "outside",
        "outside",
        f"-DVERSION={__version__}",
        f"-DSPEC_DIR={HERE / 'spec'}",
        f"-DCPP_HTTPLIB_DIR={HTTPLIB}",
        f"-DCPP_HTTPLIB_LIBRARY={examples / 'libcpp-httplib.a'}",
    )
    done = json.loads(run(built / "outside", MODEL, cwd=built))

    response = done["advanced"]["response"]
    assert response["usage"]["completion_tokens"] == 8
    assert text_of(response)
    assert done["advanced"]["metrics"]["data"]["current"]["completed_requests"] == 1

    enhanced = done["enhanced"]
    assert text_of(enhanced) == text_of(response)
    assert enhanced["atlas"]["session_id"] == "me"
    assert enhanced["atlas"]["metrics"]["completed_requests"] == 1

    endpoints = done["endpoints"]
    assert endpoints["metrics"]["body"]["data"]["current"]["completed_requests"] == 1
    assert endpoints["config"]["status"] == 200
    assert endpoints["config"]["body"]["data"]["changed"] == {"pool_timeout_ms": 1234.0}
    assert endpoints["save"]["status"] == 503  # by Python: this server has no memory path
    assert "memory persistence is off" in endpoints["save"]["body"]["error"]["message"]

    info = done["info"]
    assert info["initialized"] is True
    assert info["status"]["status"] == "healthy"
    assert info["status"]["data"]["python"]["prefix"] == str(installed.environment)

    configuration = done["configuration"]
    settings = {row["name"]: row["value"] for row in configuration["settings"]}
    threads = configuration["threads"]
    assert configuration["pool"] == 2 * threads
    expected = {
        "enable_memory_persistence": True,
        "memory_save_path": "./atlas_memory",
        "max_concurrent_atlas_requests": threads,
        "context_pool_size": 2 * threads,
        "api_latency_budget_ms": 5.0,
        "enable_metrics_collection": True,
        "l1_cache_size": 64 << 20,
        "l2_cache_size": 256 << 20,
        "l3_cache_size": 1 << 30,
        "metrics_update_interval_ms": 5000,
        "metrics_history_size": 500,
        "verbose_logging": True,
        "log_level": "debug",
    }
    assert {name: settings[name] for name in expected} == expected


def test_the_desktop_example_goes_on_after_kill_9(installed: Installed, examples: Path) -> None:
    command: list[str | Path] = [examples / "atlas-example-desktop", MODEL, installed.directory / "memory"]
    with subprocess.Popen(
        [*command, "My name is Anna.", *["Tell me a story."] * 1000],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline().strip()  # what it says is durable
        first.kill()
    assert first.returncode == -signal.SIGKILL
    again = subprocess.run(
        [*command, "What is my name?"], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert "Anna" in again.stdout
    known = re.search(r"^(\d+) of \d+ tokens were known$", again.stderr, re.MULTILINE)
    assert known is not None
    assert int(known[1]) > 0


def test_the_advanced_example(installed: Installed, examples: Path) -> None:
    memory = installed.directory / "advanced"
    said = run(examples / "atlas-example-advanced", MODEL, memory, cwd=installed.directory)
    whole, pieces, *_ = said.splitlines()
    assert pieces.replace("|", "") == whole
    assert (memory / "blocks").is_dir()


def test_the_example_of_a_memory_policy(installed: Installed, examples: Path) -> None:
    def known(*options: str) -> int:
        memory = installed.directory / "-".join(("policy", *options))
        said = run(examples / "atlas-example-policy", MODEL, memory, *options, cwd=installed.directory)
        first, status = said.splitlines()
        assert json.loads(status)["decided_by"] == ("program" if options else "plugins")
        return int(first.split()[0])

    assert known() == 0
    assert known("own") == 499  # the last of its 500 tokens is always computed


def test_an_example_by_pkg_config(installed: Installed) -> None:
    assert shutil.which("pkg-config")
    program = installed.directory / "simple"
    where = {"PKG_CONFIG_PATH": str(installed.libraries / "pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "atlas", cwd=installed.directory, **where).split()
    compiler = os.environ.get("CXX", "c++")
    run(compiler, "-std=c++17", EXAMPLES / "simple.cpp", "-o", program, *flags, cwd=installed.directory)
    libraries = {"LD_LIBRARY_PATH": str(installed.libraries)}
    said = run(program, MODEL, cwd=installed.directory, **libraries)
    assert run("pkg-config", "--modversion", "atlas", cwd=installed.directory, **where) == f"{__version__}\n"
    assert said.rstrip().endswith(f"ATLAS {__version__}: healthy")
    assert '"metrics"' in said
