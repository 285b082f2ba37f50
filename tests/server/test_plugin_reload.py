"""Plugins from files that change while the server runs."""

from pathlib import Path
from typing import Any

import pytest

from tests.server.completions import ENDLESS_OPTIONS, complete, endless
from tests.server.conftest import StartServer
from tests.server.harness import Server, write_plugin

RELOAD = "/v1/atlas/plugins/reload"
# Marks answers and events with its version, and says when it is shut down.
PLUGIN = """
from pathlib import Path

from atlas_plugin import Modify, hookimpl

VERSION = {version}


@hookimpl(deadline_ms=60000)
def on_response(answer):
    return Modify({{**answer, "version": VERSION}})


@hookimpl(deadline_ms=60000)
def on_stream_chunk(chunk):
    return Modify([{{**event, "version": VERSION}} for event in chunk.events])


@hookimpl
def shutdown():
    (Path(__file__).parent / "gone").write_text(str(VERSION))
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    directory = tmp_path / "plugins"
    directory.mkdir()
    return directory


def version(server: Server) -> Any:
    return complete(server, "/v1/completions").get("version")


def test_a_stream_goes_on_with_the_plugin_that_it_began_with(
    start_server: StartServer, plugins: Path
) -> None:
    write_plugin(plugins, PLUGIN.format(version=1))
    server = start_server(["--atlas-plugins-dir", plugins, *ENDLESS_OPTIONS])
    assert version(server) == 1
    with endless(server) as lines:
        write_plugin(plugins, PLUGIN.format(version=2))
        answer = server.post(RELOAD, {})
        assert answer.json() == {"status": "success", "data": {"loaded": ["probe"], "removed": []}}
        assert version(server) == 2
        events = [line for _, line in zip(range(20), lines, strict=False) if line.startswith("data: ")]
        assert events
        assert all('"version":1' in event for event in events)
        assert not (plugins / "gone").exists()
    server.wait_until((plugins / "gone").exists)
    server.wait_until(lambda: (plugins / "gone").read_text() == "1")


def test_a_set_that_fails_changes_nothing(start_server: StartServer, plugins: Path) -> None:
    path = write_plugin(plugins, PLUGIN.format(version=1))
    server = start_server(["--atlas-plugins-dir", plugins])
    path.write_text("import nothing_of_that_name")
    answer = server.post(RELOAD, {})
    assert answer.status_code == 400
    assert "No module named 'nothing_of_that_name'" in answer.json()["error"]["message"]
    assert version(server) == 1
    status = server.get("/v1/atlas/status").json()
    assert status["status"] == "degraded"
    assert "the plugins were not loaded anew" in str(status["problems"])
    path.unlink()
    assert server.post(RELOAD, {}).json()["data"] == {"loaded": [], "removed": ["probe"]}
    assert version(server) is None
    assert server.get("/v1/atlas/status").json()["status"] != "degraded"


def test_files_are_watched(start_server: StartServer, plugins: Path) -> None:
    server = start_server(["--atlas-plugins-dir", plugins, "--atlas-reload"])
    assert version(server) is None
    for number in (1, 2):
        write_plugin(plugins, PLUGIN.format(version=number))
        server.wait_until(lambda wanted=number: version(server) == wanted)
    (plugins / "probe.py").unlink()
    server.wait_until(lambda: version(server) is None)
