"""Disks that are full or read-only: requests go on, and all is well again without a restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.small_disk import SmallDisk
from tests.server.conformance import data_of, operate
from tests.server.conversations import (
    ASK_CITY,
    ASK_NAME,
    Conversation,
    chat,
    cold_chat,
    flush,
    kill_and_start,
    memory_options,
    memory_status,
)
from tests.server.harness import Server

STATE = {"text": "x" * 1000}


@pytest.fixture
def server(tmp_path: Path, small_disk: SmallDisk) -> Iterator[Server]:
    """A server whose memory is on the small disk."""
    server = Server(memory_options(small_disk.path), directory=tmp_path)
    server.command[:0] = small_disk.enter
    with server:
        yield server


def save(server: Server, name: str) -> int:
    answer = operate(server, "save", {"context_id": name, "state": STATE})
    if answer.status_code != 200:
        assert answer.status_code == 500, answer.text
        assert "check the disk space and permissions of" in answer.json()["error"]["message"]
    return answer.status_code


def say(server: Server, text: str) -> bool:
    """A turn of the session that the server keeps; whether the answer says that it was recorded."""
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 2}
    kept = {"session_id": "kept", "history": "server"}
    answer = server.post("/v1/chat/completions", {**body, "atlas": kept})
    assert answer.status_code == 200, answer.text
    return not answer.json()["atlas"]["degraded"]


def said(server: Server) -> list[str]:
    """What users said in that session."""
    session = data_of(operate(server, "load", {"context_id": "kept"}))["session"]
    return [one["content"] for one in session["conversation_history"] if one["role"] == "user"]


def until_it_fails(server: Server) -> list[str]:
    """Save under one name after the other, until one is refused; the others."""
    saved: list[str] = []
    while save(server, f"{len(saved)}") == 200:
        saved.append(f"{len(saved)}")
    return saved


def check_trouble(server: Server, cold: Server, told: Conversation, reason: str) -> None:
    """The status and a flush name the reason; answers are right, and as fast as RAM makes them."""
    Conversation(11).ask(server)
    refused = server.post("/v1/atlas/memory/flush", {"timeout_s": 30})
    assert refused.status_code == 500
    assert reason in refused.json()["error"]["message"]
    assert reason in memory_status(server)["disk"]["problem"]
    assert server.get("/v1/atlas/status").json()["status"] == "degraded"
    answer = chat(server, told.asking(ASK_CITY))
    assert answer.reused > 0
    assert answer.text == cold_chat(cold, told.asking(ASK_CITY)).text


def check_health(server: Server) -> None:
    """All is well again, on both sides of the server, without a restart."""
    server.wait_until(lambda: memory_status(server)["disk"]["problem"] is None)
    flush(server)
    assert save(server, "after") == 200
    assert say(server, "after")
    server.wait_until(lambda: server.get("/v1/atlas/status").json()["status"] == "healthy")


def test_full(server: Server, small_disk: SmallDisk, cold: Server) -> None:
    told = Conversation(10)
    first = told.ask(server)
    flush(server)
    assert say(server, "before")
    small_disk.fill()
    saved = until_it_fails(server)
    recorded = [f"{number}" for number in range(3) if say(server, f"{number}")]
    check_trouble(server, cold, told, "No space left on device")
    small_disk.make_room()
    check_health(server)
    kill_and_start(server)
    for name in [*saved, "after"]:
        assert data_of(operate(server, "load", {"context_id": name}))["state"] == STATE
    assert said(server) == ["before", *recorded, "after"]
    for conversation in (told, Conversation(11)):
        assert chat(server, conversation.asking(ASK_NAME), atlas={}).layer == 1
    assert told.ask(server, ASK_CITY).recalls(first)


def test_full_from_the_start(server: Server, small_disk: SmallDisk, cold: Server) -> None:
    server.kill()
    small_disk.fill()
    server.start()
    told = Conversation(10)
    told.ask(server)
    check_trouble(server, cold, told, "No space left on device")
    small_disk.make_room()
    check_health(server)


def test_read_only(server: Server, small_disk: SmallDisk, cold: Server) -> None:
    told = Conversation(10)
    first = told.ask(server)
    flush(server)
    assert save(server, "before") == 200
    assert say(server, "before")
    server.kill()
    small_disk.mount("ro")
    server.start()
    server.wait_until(lambda: memory_status(server)["disk"]["entries"] > 0)
    assert told.ask(server, ASK_CITY).recalls(first)
    assert save(server, "refused") == 500
    check_trouble(server, cold, told, "Read-only file system")
    small_disk.mount("rw")
    check_health(server)
    kill_and_start(server)
    assert data_of(operate(server, "load", {"context_id": "before"}))["state"] == STATE
    assert said(server) == ["before", "after"]
