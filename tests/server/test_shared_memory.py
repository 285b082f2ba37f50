"""Layer 3: what one server computed another finds, through a directory that both can read."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    ASK_NAME,
    ONE_THREAD,
    Conversation,
    cold_chat,
    filler,
    memory_status,
)
from tests.server.harness import Server
from tests.server.test_budgets import resident_bytes

# Most of a conversation is text that both turns have.
N_ITEMS = 60
REUSED = 0.95

StartSharing = Callable[..., Server]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    directory = tmp_path / "mount"
    directory.mkdir()
    return directory


@pytest.fixture
def start_sharing(start_server: StartServer, tmp_path: Path, shared: Path) -> StartSharing:
    """Starts servers that share that directory, each with a memory path of its own."""

    def start(name: str, *more: str | Path, **options: Any) -> Server:
        paths = ["--atlas-memory-path", tmp_path / name, "--atlas-shared-url", f"file://{shared}"]
        server = start_server([*ONE_THREAD, *paths, *more], **options)
        server.wait_until(lambda: status(server)["round_trip_ms"] >= 0)
        return server

    return start


def status(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = memory_status(server)["shared"]
    return found


def share(server: Server) -> None:
    """Wait until all that was answered before is there for others."""
    response = server.post("/v1/atlas/memory/flush", {"timeout_s": 60, "layer": 3})
    assert response.status_code == 200, response.text


def values(shared: Path) -> list[Path]:
    return sorted(shared.glob("blocks/*/*/*.kv"))


def first_turn(server: Server, number: int = 1, **atlas: Any) -> Conversation:
    told = Conversation(number, N_ITEMS)
    told.ask(server, atlas=atlas)
    share(server)
    return told


def assert_found(server: Server, told: Conversation, least: float = REUSED) -> None:
    """The next turn of what another server was told is answered as if all was computed here."""
    answer = told.ask(server, ASK_CITY, atlas={})
    assert (answer.layer, answer.reason) == (3, None)
    assert answer.reused >= least * answer.prompt
    assert answer.text == cold_chat(server, told.messages[:-1]).text


def test_a_conversation_goes_on_with_another_server(start_sharing: StartSharing, shared: Path) -> None:
    first, second = start_sharing("a"), start_sharing("b")
    told = first_turn(first)
    assert memory_status(first)["root"] == memory_status(second)["root"]
    assert status(first)["written"]["entries"] == len(values(shared)) > 0
    assert_found(second, told)
    found = status(second)
    assert found["hits"] == 1
    assert found["found"] >= found["read"]["entries"] > 0
    assert found["url"] == f"file://{shared}"
    assert (found["problem"], found["retry_s"], found["damaged"]) == (None, None, 0)

    # it is here now: in RAM, and after a while on this server's own disk
    again = told.ask(second, f"{filler(N_ITEMS)} {ASK_NAME}", atlas={})
    assert again.reused > found["read"]["entries"]
    assert status(second)["read"] == found["read"]
    share(second)
    assert memory_status(second)["disk"]["entries"] > 0
    # and the next turn goes back to the first server, which lacks these
    assert_found(first, told)


def test_a_request_can_keep_away_from_it(start_sharing: StartSharing, shared: Path) -> None:
    first, second = start_sharing("a"), start_sharing("b")
    first_turn(first, 2, memory_layers=2)
    assert values(shared) == []
    told = first_turn(first, 1)
    answer = told.ask(second, ASK_CITY, atlas={"memory_layers": 2})
    assert (answer.layer, answer.reused, answer.reason) == (0, 0, "no_match")
    assert status(second)["lookups"] == 0


def test_damaged_values_are_computed_anew_and_removed(start_sharing: StartSharing, shared: Path) -> None:
    first = start_sharing("a")
    told = first_turn(first)
    for file in values(shared):
        bytes_of = bytearray(file.read_bytes())
        bytes_of[-1] ^= 1
        file.write_bytes(bytes_of)
    second = start_sharing("b")
    answer = told.ask(second, ASK_CITY, atlas={})
    assert (answer.layer, answer.reused) == (0, 0)
    assert answer.text == cold_chat(second, told.messages[:-1]).text
    assert status(second)["damaged"] == 1
    # what was computed here takes its place
    share(second)
    third = start_sharing("c")
    assert told.ask(third, atlas={}).layer == 3


def test_values_that_are_larger_than_any_can_be_take_no_memory(
    start_sharing: StartSharing, shared: Path
) -> None:
    told = first_turn(start_sharing("a"))
    true_size = max(file.stat().st_size for file in values(shared))
    assert true_size < 4 << 20
    for file in values(shared):
        os.truncate(file, 400 << 20)
    second = start_sharing("b")
    before = resident_bytes(second, "VmHWM")
    answer = told.ask(second, ASK_CITY, atlas={})
    assert (answer.layer, answer.reused) == (0, 0)
    assert resident_bytes(second, "VmHWM") < before + (200 << 20)
    assert status(second)["damaged"] == 1
    share(second)
    # what was computed here takes its place
    assert min(file.stat().st_size for file in values(shared)) <= true_size


def test_a_directory_that_goes_and_comes_back(start_sharing: StartSharing, shared: Path) -> None:
    first, second = start_sharing("a"), start_sharing("b")
    told, other = first_turn(first, 1), first_turn(first, 2)
    away = shared.rename(f"{shared}.away")
    answer = told.ask(second, ASK_CITY, atlas={})
    assert (answer.layer, answer.reused) == (0, 0)
    alone = Conversation(3, N_ITEMS)
    alone.ask(second)
    second.wait_until(lambda: status(second)["problem"] is not None)
    assert str(shared) in status(second)["problem"]
    assert status(second)["retry_s"] >= 0
    document = second.get("/v1/atlas/status").json()
    assert any("What servers share does not work now" in notice for notice in document["notices"])
    response = second.post("/v1/atlas/memory/flush", {"timeout_s": 60, "layer": 3})
    assert response.status_code == 500
    assert str(shared) in response.json()["error"]["message"]
    assert "what servers share does not work" in second.log_path.read_text()

    away.rename(shared)
    second.wait_until(lambda: status(second)["problem"] is None)
    assert_found(second, other)
    share(second)
    assert_found(first, alone)  # it waited meanwhile


def test_a_start_without_the_directory(start_sharing: StartSharing, shared: Path) -> None:
    shared.rmdir()
    server = start_sharing("a")
    server.wait_until(lambda: status(server)["problem"] is not None)
    answer = Conversation(1).ask(server, atlas={})
    assert (answer.layer, status(server)["lookups"]) == (0, 0)
    shared.mkdir()
    server.wait_until(lambda: len(values(shared)) > 0)


def test_a_server_without_a_disk_of_its_own(
    start_sharing: StartSharing, start_server: StartServer, shared: Path
) -> None:
    told = first_turn(start_sharing("a"))
    server = start_server([*ONE_THREAD, "--atlas-shared-url", f"file://{shared}"])
    assert told.ask(server, ASK_CITY, atlas={}).layer == 3
    share(server)
    found = memory_status(server)
    assert (found["path"], found["disk"]["entries"], found["disk"]["problem"]) == (None, 0, None)
    answer = told.ask(server, atlas={})
    assert answer.layer == 1 or answer.reason is None
    third = start_sharing("c")
    assert told.ask(third, ASK_CITY, atlas={}).layer == 3


def test_what_is_shared_may_be_limited(start_sharing: StartSharing, shared: Path) -> None:
    none = start_sharing("a", "--atlas-shared-write", "none")
    first_turn(none)
    assert values(shared) == []
    reused = start_sharing("b", "--atlas-shared-write", "reused")
    told = first_turn(reused)
    assert values(shared) == []
    told.ask(reused)
    share(reused)
    assert len(values(shared)) > 0


def test_metrics(start_sharing: StartSharing, shared: Path) -> None:
    told = first_turn(start_sharing("a"))
    second = start_sharing("b")
    answer = told.ask(second, ASK_CITY, atlas={})
    text = second.get("/v1/atlas/metrics/prometheus").text.splitlines()
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text if line[:1] != "#"}
    assert found['atlas_prompt_tokens_total{source="shared"}'] == answer.reused
    assert found['atlas_restores_total{layer="shared",result="restored"}'] == 1
    assert found['atlas_shared_lookups_total{result="hit"}'] == found["atlas_shared_up"] == 1
    assert found["atlas_shared_read_bytes_total"] > 0
    assert found["atlas_shared_damaged_total"] == found["atlas_shared_timeouts_total"] == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--atlas-shared-url", "mnt"], "--atlas-shared-url: a shared memory's URL begins with valkey://"),
        (["--atlas-shared-url", "file://mnt/kv"], "the form is file:///DIRECTORY"),
        (
            ["--atlas-shared-url", "ftp://host/kv"],
            "--atlas-shared-url: a shared memory's URL begins with valkey://",
        ),
        (
            ["--atlas-shared-write", "some"],
            "--atlas-shared-write: 'some' is not allowed: give all, reused or none",
        ),
    ],
)
def test_settings_that_are_wrong(spawn_server: StartServer, options: list[str], problem: str) -> None:
    server = spawn_server(options)
    assert server.wait() != 0
    assert problem in server.log
