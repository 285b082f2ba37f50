"""Sessions by /v1/atlas/memory: pinned, listed, deleted."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin import ServerError
from atlas_plugin.storage.memory_records import SessionEdit
from atlas_plugin.storage.sessions import SessionStore
from atlas_plugin.testing import Application, FakeHost
from tests.unit.session_rows import rows, use

Start = Callable[[FakeHost], Application]
Eventually = Callable[[Callable[[], object]], None]
NewHost = Callable[..., FakeHost]
Ask = Callable[..., tuple[int, Any]]

pytestmark = pytest.mark.usefixtures("hurried")


def test_pin_and_unpin(
    new_host: NewHost, directory: Path, start: Start, ask: Ask, eventually: Eventually
) -> None:
    host = new_host()
    application = start(host)
    use(host, "a")
    assert ask(application, "pin", session_id="a") == (200, {"session_id": "a", "pinned": True})
    assert host.live_sessions["a"].pinned
    eventually(lambda: "a" in rows(directory) and rows(directory)["a"][2])
    assert ask(application, "unpin", context_id="a") == (200, {"session_id": "a", "pinned": False})
    assert not host.live_sessions["a"].pinned
    eventually(lambda: not rows(directory)["a"][2])
    status, error = ask(application, "pin", session_id="b")
    assert (status, error["type"], error["message"]) == (404, "not_found", "no session 'b'")
    host.pin_problem = "half of the disk layer is pinned"
    status, error = ask(application, "pin", session_id="a")
    assert (status, error["type"]) == (413, "validation_error")
    assert error["message"] == "half of the disk layer is pinned"


def test_list_is_the_union(new_host: NewHost, start: Start, ask: Ask) -> None:
    host = new_host()
    application = start(host)
    for name in ("d", "b"):
        ask(application, "save", context_id=name, state={})
    before = time.time()
    a = use(host, "a", ram_bytes=10, disk_bytes=20)
    b = use(host, "b", ram_bytes=0, disk_bytes=20, pinned=True)
    use(host, "c", ram_bytes=0)
    status, page = ask(application, "list")
    assert (status, page["next_cursor"]) == (200, None)
    listed = {entry.pop("context_id"): entry for entry in page["contexts"]}
    assert list(listed) == ["a", "b", "c", "d"]
    assert {key: listed["a"][key] for key in ("bytes", "created", "updated")} == {
        "bytes": None,
        "created": None,
        "updated": None,
    }
    session = listed["a"]["session"]
    assert before <= session.pop("created_at") <= time.time()
    assert session == {
        "tokens": 300,
        "bytes": 30,
        "ram_bytes": 10,
        "disk_bytes": 20,
        "layers": [1, 2],
        "last_used_at": a.last_used,
        "pinned": False,
    }
    assert listed["b"]["bytes"] == 2
    assert listed["b"]["created"] <= listed["b"]["updated"]
    assert listed["b"]["session"]["last_used_at"] == b.last_used
    assert (listed["b"]["session"]["layers"], listed["b"]["session"]["pinned"]) == ([2], True)
    assert (listed["c"]["session"]["layers"], listed["c"]["session"]["bytes"]) == ([], 0)
    assert listed["d"]["session"] is None


def test_list_is_paged(new_host: NewHost, start: Start, ask: Ask) -> None:
    host = new_host()
    application = start(host)
    for number in range(10):
        if number % 3:
            use(host, f"{number}")
        if number % 2:
            ask(application, "save", context_id=f"{number}", state={})
    seen: list[list[str]] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        page = ask(application, "list", limit=3, cursor=cursor)[1]
        seen.append([entry["context_id"] for entry in page["contexts"]])
        cursor = page["next_cursor"]
    assert seen == [["1", "2", "3"], ["4", "5", "7"], ["8", "9"]]


def test_delete_removes_both(new_host: NewHost, directory: Path, start: Start, ask: Ask) -> None:
    host = new_host()
    application = start(host)
    ask(application, "save", context_id="both", state={})
    for name in ("both", "session"):
        use(host, name, ram_bytes=10, disk_bytes=20)
    ask(application, "list")
    assert ask(application, "delete", context_id="both") == (
        200,
        {"context_id": "both", "freed_bytes": 32},
    )
    assert ask(application, "delete", context_id="session") == (
        200,
        {"context_id": "session", "freed_bytes": 30},
    )
    assert (host.live_sessions, rows(directory)) == ({}, {})
    for operation in ("delete", "load", "pin"):
        assert ask(application, operation, context_id="both")[0] == 404


def test_a_row_alone_can_be_deleted(new_host: NewHost, start: Start, ask: Ask) -> None:
    host = new_host()
    application = start(host)
    for name in ("a", "b"):
        use(host, name)
    ask(application, "list")
    host.live_sessions.clear()
    assert ask(application, "delete", context_id="a") == (200, {"context_id": "a", "freed_bytes": 0})
    application.stop()

    host = new_host(enable_auto_memory=False)
    application = start(host)
    [entry] = ask(application, "list")[1]["contexts"]
    assert (entry["context_id"], entry["session"]["bytes"]) == ("b", 0)
    status, error = ask(application, "pin", session_id="b")
    assert (status, error["type"]) == (503, "service_unavailable")
    assert error["message"] == host.status()["in_effect"]["conversations_off"]
    assert ask(application, "delete", context_id="b") == (200, {"context_id": "b", "freed_bytes": 0})
    assert ask(application, "delete", context_id="b")[0] == 404


def test_what_is_being_written_cannot_be_deleted_in_between(
    new_host: NewHost,
    directory: Path,
    start: Start,
    ask: Ask,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = new_host()
    application = start(host)
    put = SessionStore.put
    deletions: list[tuple[int, Any]] = []

    def slow_put(*arguments: Any) -> None:
        time.sleep(0.05)
        put(*arguments)

    monkeypatch.setattr(SessionStore, "put", slow_put)
    for _ in range(5):
        use(host, "a")
        time.sleep(0.02)
        deletions.append(ask(application, "delete", context_id="a"))
    assert [status for status, _ in deletions] == [200] * 5
    application.stop()
    assert rows(directory) == {}


@pytest.mark.parametrize("operation", ["pin", "unpin", "list", "delete"])
def test_without_a_memory_path(start: Start, ask: Ask, operation: str) -> None:
    status, error = ask(start(FakeHost()), operation, context_id="a")
    assert (status, error["type"]) == (503, "service_unavailable")
    assert error["message"] == "nothing is saved"


def test_a_failing_server_is_an_answer(
    new_host: NewHost, start: Start, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> SessionEdit:
        raise ServerError("not now")

    host = new_host()
    application = start(host)
    monkeypatch.setattr(host, "edit_session", fail)
    status, error = ask(application, "pin", session_id="a")
    assert (status, error["message"]) == (500, "not now")
