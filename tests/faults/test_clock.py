"""A clock that jumps while the server runs; Debian's libfaketime moves it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.conformance import data_of, operate
from tests.server.conftest import StartServer
from tests.server.conversations import ASK_CITY, Conversation, flush, kill_and_start, memory_options
from tests.server.harness import Server

DAY_S = 86400.0

SetClock = Callable[[str], None]


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """The file that says how far the clock is off."""
    path = tmp_path / "clock"
    path.write_text("+0", encoding="ascii")
    return path


def faketime(clock: Path) -> dict[str, str]:
    """The environment of a process whose clock the file moves, as setting it would: no other clock moves."""
    libraries = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
    assert libraries, "libfaketime is missing; install it: apt-get install --no-install-recommends faketime"
    return {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def status(server: Server) -> Any:
    return server.get("/v1/atlas/status").json()["data"]


def timestamp(server: Server) -> float:
    """The server's own clock."""
    seconds: float = server.get("/v1/atlas/nothing").json()["error"]["timestamp"]
    return seconds


def names(server: Server) -> list[str]:
    entries = data_of(operate(server, "list", {}))["contexts"]
    return [entry["context_id"] for entry in entries if entry["session"]]


def test_sessions_outlive_a_clock_that_jumps(start_server: StartServer, tmp_path: Path, clock: Path) -> None:
    options = [*memory_options(tmp_path), "--atlas-session-ttl", "3600"]
    server = start_server(options, environment=faketime(clock))
    told = Conversation(1)
    first = told.ask(server, atlas={"session_id": "told"})
    flush(server)
    server.wait_until(lambda: names(server) == ["told"])
    began = timestamp(server)

    clock.write_text("+30d", encoding="ascii")
    assert server.logged("the clock was put forward by")
    assert timestamp(server) >= began + 29 * DAY_S
    Conversation(2).ask(server, atlas={"session_id": "later"})
    server.wait_until(lambda: names(server) == ["later", "told"])

    for jump in ("+0", "-30d", "+0", "+30d", "+0"):
        written = status(server)["sessions"]["written"]
        clock.write_text(jump, encoding="ascii")
        Conversation(3).ask(server, atlas={"session_id": "often"})
        server.wait_until(lambda n=written: status(server)["sessions"]["written"] > n)
    assert names(server) == ["later", "often", "told"]
    assert status(server)["sessions"]["expired"] == 0
    kill_and_start(server)
    assert names(server) == ["later", "often", "told"]
    answer = told.ask(server, ASK_CITY, atlas={"session_id": "told"})
    assert answer.recalls(first)
