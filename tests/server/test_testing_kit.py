"""pytest's fixture `atlas_server`, as plugin authors use it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin import CompletionRequest
from atlas_plugin.testing import Application, FakeHost, ServerExitedError, StartServer
from tests.builtins import BUILTIN
from tests.server.harness import MODEL, REPOSITORY, write_plugin

PLUGIN = """
from atlas_plugin import Modify, Reject, hookimpl

@hookimpl(priority={priority})
def on_request(body):
    if body.get("refuse") == "{name}":
        return Reject(451, "{name} says no")
    if body.get("break") == "{name}":
        raise ValueError("{name} is broken")
    return Modify({{**body, "refuse": body.get("then"), "max_tokens": {tokens}}})

@hookimpl
def register_routes(routes):
    @routes.post("/v1/atlas/x/{name}")
    def echo(request):
        return {{"json": request.json(), "header": request.headers.get("x-probe")}}

@hookimpl
def shutdown():
    print("{name} has ended", flush=True)
"""


@pytest.fixture
def plugins(tmp_path: Path) -> list[Path]:
    """Two, of which the second is asked first."""
    return [
        write_plugin(tmp_path, PLUGIN.format(name=name, priority=priority, tokens=tokens), name)
        for name, priority, tokens in (("one", 1, 3), ("two", -1, 9))
    ]


def test_a_server_with_plugins(atlas_server: StartServer, plugins: list[Path]) -> None:
    server = atlas_server(plugins=plugins, settings={"hook_breaches": 7}, arguments=["--alias", "mine"])
    assert server.post("/v1/atlas/x/one", [1], {"X-Probe": "a"}).json() == {"json": [1], "header": "a"}
    assert server.get("/v1/models").json()["data"][0]["id"] == "mine"
    assert server.get("/nothing").status == 404
    settings = {row["name"]: row for row in server.get("/v1/atlas/config").json()["data"]["settings"]}
    assert (settings["hook_breaches"]["value"], settings["hook_deadline_ms"]["value"]) == (7, 5000)
    streamed = server.post("/v1/completions", {"prompt": "a", "stream": True, "ignore_eos": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.events()[-1]["timings"]["predicted_n"] == 3
    assert server.stop() == 0
    assert "one has ended" in server.log


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 200, None),
        ({"refuse": "two", "then": "one"}, 451, "two says no"),
        ({"then": "one"}, 451, "one says no"),
        ({"break": "two"}, 200, None),
    ],
)
def test_without_a_server_the_same_comes_out(
    atlas_server: StartServer, plugins: list[Path], body: dict[str, Any], status: int, message: str | None
) -> None:
    body = {"prompt": "a", "ignore_eos": True, **body}
    answer = atlas_server(plugins=plugins).post("/v1/completions", body)
    with Application(FakeHost(plugins=[str(path) for path in plugins])) as application:
        asked = application.ask("on_request", CompletionRequest("/v1/completions", "r1"), body)
    assert answer.status == status
    if asked.rejected is None:
        assert message is None
        assert answer.json()["usage"]["completion_tokens"] == asked.value["max_tokens"] == 3
    else:
        assert (asked.rejected.status, asked.rejected.message) == (status, message)
        assert answer.json()["error"]["message"] == message


def test_keys_and_what_is_wrong(atlas_server: StartServer, tmp_path: Path) -> None:
    server = atlas_server(api_key="a-key")
    names = [one["name"] for one in server.get("/v1/atlas/plugins").json()["data"]["plugins"]]
    assert names == BUILTIN
    assert server.get("/v1/atlas/plugins", {"Authorization": "Bearer another"}).status == 401
    with pytest.raises(ServerExitedError, match="ZeroDivisionError"):
        atlas_server(plugins=[write_plugin(tmp_path, "1 / 0")])
    with pytest.raises(ServerExitedError, match=r"(?s)plugin 'probe' failed: ZeroDivisionError.*Traceback"):
        atlas_server(settings={"plugins_dir": tmp_path})
    with pytest.raises(TypeError, match="no such settings: hook_deadline"):
        atlas_server(settings={"hook_deadline": 1})


def test_the_tests_of_the_documentation_pass(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/plugins.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page.partition("## Testing a plugin")[2], re.M | re.S)
    for number, block in enumerate(blocks):
        (tmp_path / f"test_{number}.py").write_text(block)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in ran.stdout, ran.stdout


def test_a_test_that_fails_shows_the_log(tmp_path: Path) -> None:
    source = 'def test_one(atlas_server): assert atlas_server().get("/nothing").status == 200'
    (tmp_path / "test_one.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stdout.count(" log of llama-server on http://127.0.0.1:") == 1
    assert "plugins active: " in ran.stdout


TEST = "def test_one(atlas_server): print(atlas_server().get('/health').json())\n"


@pytest.mark.parametrize("variable", ["ATLAS_TEST_BINARY", "ATLAS_TEST_MODEL"])
def test_what_is_missing_is_named(tmp_path: Path, variable: str) -> None:
    (tmp_path / "test_one.py").write_text(TEST)
    environment = {**os.environ, "ATLAS_TEST_MODEL": str(MODEL), variable: str(tmp_path / "nowhere")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    [line] = [line for line in ran.stdout.splitlines() if line.startswith("there is no ")]
    assert f"{tmp_path}/nowhere" in line
    assert f"or set {variable} to its path" in line
    assert "Traceback" not in ran.stdout
