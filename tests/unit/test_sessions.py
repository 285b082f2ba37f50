"""Sessions: stored, restored after a restart, ended when idle; pinned, listed, deleted."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from atlas_plugin import Response, ServerError, worker
from atlas_plugin.builtin import sessions as keeping
from atlas_plugin.database import Database
from atlas_plugin.memory_records import MAX_SESSIONS, Session, SessionEdit
from atlas_plugin.sessions import SessionStore
from atlas_plugin.testing import Application, FakeHost

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]
Eventually = Callable[[Callable[[], object]], None]

KEYS = ("00" * 31 + "01", "ff" * 32)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "POLL_S", 0.002)
    monkeypatch.setattr(worker, "RETRY_S", 0.002)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "memory"


@pytest.fixture
def new_host(directory: Path) -> Callable[..., FakeHost]:
    return lambda **settings: FakeHost(memory_save_path=str(directory), **settings)


@pytest.fixture
def ask(call: Call) -> Callable[..., tuple[int, Any]]:
    """ask(application, operation, **fields): the status, and the data or the error of the answer."""

    def asked(application: Application, operation: str, **fields: Any) -> tuple[int, Any]:
        response = call(application, "POST", f"/v1/atlas/memory/{operation}", body=orjson.dumps(fields))
        document = orjson.loads(response.body)
        return response.status, document["data" if response.status == 200 else "error"]

    return asked


NewHost = Callable[..., FakeHost]
Ask = Callable[..., tuple[int, Any]]


def rows(directory: Path) -> dict[str, tuple[int, float, bool, tuple[str, ...]]]:
    database = Database(directory)
    found = SessionStore(database).page()
    database.close()
    return {row.session_id: (row.tokens, row.last_used, row.pinned, tuple(row.chain)) for row in found}


def use(host: FakeHost, session_id: str, **state: Any) -> Session:
    return host.use_session(
        session_id, **{"tokens": 300, "chain": KEYS, "last_used": time.time(), "ram_bytes": 10, **state}
    )


class TestRows:
    def test_they_follow_what_changes(
        self, new_host: NewHost, directory: Path, start: Start, eventually: Eventually
    ) -> None:
        host = new_host()
        start(host)
        first = use(host, "a")
        eventually(lambda: rows(directory) == {"a": (300, first.last_used, False, KEYS)})
        second = use(host, "a", tokens=301, chain=KEYS[:1])
        use(host, "b", tokens=0, chain=())
        eventually(lambda: len(rows(directory)) == 2)
        assert rows(directory)["a"] == (301, second.last_used, False, KEYS[:1])
        assert rows(directory)["b"][0] == 0

    def test_what_changed_last_is_written_at_shutdown(
        self, new_host: NewHost, directory: Path, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keeping, "POLL_S", 3600.0)
        host = new_host()
        application = start(host)
        for number in range(MAX_SESSIONS + 1):
            use(host, f"{number}")
        application.stop()
        database = Database(directory)
        store = SessionStore(database)
        first = store.page()
        assert len(first) == MAX_SESSIONS
        assert len(store.page(first[-1].session_id)) == 1
        database.close()

    def test_they_are_restored(
        self, new_host: NewHost, directory: Path, start: Start, call: Call, eventually: Eventually
    ) -> None:
        host = new_host()
        application = start(host)
        used = [use(host, f"{number}", pinned=number == 3) for number in range(5)]
        application.stop()
        before = rows(directory)

        host = new_host()
        application = start(host)
        restored = host.live_sessions
        assert {name: replace(one, version=0) for name, one in restored.items()} == {
            one.session_id: replace(one, version=0, chain=list(KEYS), ram_bytes=0) for one in used
        }
        use(host, "3", tokens=400, pinned=True)
        eventually(lambda: rows(directory)["3"][0] == 400)
        application.stop()
        del before["3"]
        assert before.items() <= rows(directory).items()
        status = orjson.loads(call(start(new_host()), "GET", "/v1/atlas/status").body)["data"]["sessions"]
        assert status["written"] == 0, "what was only restored is not written again"

    def test_a_disk_that_fails_at_first(
        self, new_host: NewHost, directory: Path, tmp_path: Path, start: Start, eventually: Eventually
    ) -> None:
        host = new_host()
        application = start(host)
        old, kept = use(host, "old"), use(host, "kept")
        application.stop()
        away = directory.rename(tmp_path / "away")
        (tmp_path / "file").touch()
        directory.symlink_to("file")
        host = new_host()
        application = start(host)
        eventually(lambda: host.log_text.count("atlas-sessions: Failed to load sessions") == 1)
        newer = use(host, "old", tokens=999, last_used=old.last_used + 1)
        (tmp_path / "repaired").symlink_to(away)
        (tmp_path / "repaired").replace(directory)
        eventually(lambda: "kept" in host.live_sessions)
        assert host.live_sessions["kept"].last_used == kept.last_used
        assert host.live_sessions["old"] == newer, "what is in use already stays"
        eventually(lambda: rows(directory)["old"][0] == 999)

    def test_a_damaged_file_is_replaced_and_filled_again(
        self, new_host: NewHost, directory: Path, start: Start, call: Call, eventually: Eventually
    ) -> None:
        host = new_host()
        application = start(host)
        use(host, "a")
        eventually(lambda: list(rows(directory)) == ["a"])
        (directory / "other").write_bytes(b"\xa5" * 4096)
        for suffix in ("-wal", "-shm"):  # of which SQLite would make all of it again
            (directory / f"contexts.sqlite3{suffix}").unlink()
        (directory / "other").replace(directory / "contexts.sqlite3")
        use(host, "b")
        eventually(lambda: list(directory.glob("*.damaged-*")))
        eventually(lambda: sorted(rows(directory)) == ["a", "b"])
        [aside] = directory.glob("contexts.sqlite3.damaged-*[0-9]")

        def status() -> Any:
            return orjson.loads(call(application, "GET", "/v1/atlas/status").body)

        eventually(lambda: len(status()["problems"]) == 1)
        assert str(aside) in status()["problems"][0]
        assert status()["data"]["memory_persistence"] is True

    def test_a_server_that_does_not_answer(
        self,
        new_host: NewHost,
        directory: Path,
        start: Start,
        eventually: Eventually,
        call: Call,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(**arguments: object) -> list[Session]:
            raise ServerError("no sessions today")

        def failures() -> int:
            status = orjson.loads(call(application, "GET", "/v1/atlas/status").body)
            count: int = status["data"]["sessions"]["failures"]
            return count

        host = new_host()
        with monkeypatch.context() as patch:
            patch.setattr(host, "sessions", fail)
            application = start(host)
            eventually(lambda: failures() > 2)
        assert host.log_text.count("no sessions today") == 1
        use(host, "a")
        eventually(lambda: "a" in rows(directory))
        monkeypatch.setattr(host, "sessions", fail)
        application.stop()
        assert "the last uses of sessions are not saved: no sessions today" in host.log_text


class TestExpiry:
    def test_idle_sessions_end(
        self, new_host: NewHost, directory: Path, start: Start, call: Call, eventually: Eventually
    ) -> None:
        host = new_host(session_ttl_s=1000.0)
        application = start(host)
        now = time.time()
        for name, age, pinned in (("old", 1001, False), ("pinned", 1001, True), ("young", 500, False)):
            use(host, name, last_used=now - age, pinned=pinned)
        eventually(lambda: "old" not in host.live_sessions)
        eventually(lambda: sorted(rows(directory)) == ["pinned", "young"])
        status = orjson.loads(call(application, "GET", "/v1/atlas/status").body)
        assert status["data"]["sessions"] == {"written": 3, "expired": 1, "failures": 0, "recorded": 0}

        def measured() -> dict[str, float]:
            families = (family for add in application.plugins.families for family in add())
            return {family.name: family.samples[0].value for family in families}

        eventually(lambda: measured()["atlas_sessions_stored"] == 2)
        assert measured()["atlas_sessions_expired_total"] == 1
        assert measured()["atlas_session_save_failures_total"] == 0

    def test_those_that_ended_meanwhile_are_not_restored(
        self, new_host: NewHost, directory: Path, start: Start, eventually: Eventually
    ) -> None:
        host = new_host(session_ttl_s=0.0)
        application = start(host)
        for name, last_used in (("ancient", 1.0), ("new", time.time())):
            use(host, name, last_used=last_used)
        application.stop()
        assert len(rows(directory)) == 2, "0 keeps them for ever"
        host = new_host()
        start(host)
        assert sorted(host.live_sessions) == ["new"]
        eventually(lambda: sorted(rows(directory)) == ["new"])

    def test_a_damaged_row_holds_up_nothing(
        self, new_host: NewHost, directory: Path, start: Start, eventually: Eventually
    ) -> None:
        host = new_host(session_ttl_s=0.0)
        application = start(host)
        for name, last_used in (("old", 1.0), ("young", time.time())):
            use(host, name, last_used=last_used)
        application.stop()
        database = Database(directory)
        with database.write("test") as connection:
            damaged = "INSERT INTO sessions VALUES (CAST(? AS TEXT), ?, ?, 0, 1.0, ?)"
            connection.execute(damaged, (b"\xff", 1, 1.0, b""))
            connection.execute(damaged, (b"chain", 1, time.time(), "text"))
            connection.execute(damaged, (b"tokens", "many", time.time(), b""))
        database.close()
        host = new_host(session_ttl_s=1000.0)
        start(host)
        assert sorted(host.live_sessions) == ["young"]
        eventually(lambda: sorted(rows(directory)) == ["young"])
        use(host, "new")
        eventually(lambda: sorted(rows(directory)) == ["new", "young"])

    def test_the_clock_jumps_forward_and_back(
        self,
        new_host: NewHost,
        directory: Path,
        start: Start,
        eventually: Eventually,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        host = new_host(session_ttl_s=1000.0)
        application = start(host)
        begun, jump, clock = time.time(), 0.0, time.time
        monkeypatch.setattr(time, "time", lambda: clock() + jump)
        use(host, "old", last_used=begun - 900)
        eventually(lambda: "old" in rows(directory))
        use(host, "written-later", last_used=begun)
        jump = 1e6
        use(host, "after", last_used=begun + jump)
        eventually(lambda: "the clock was put forward by 1000000 s" in host.log_text)
        host.edit_session("pin", "written-later")
        eventually(lambda: rows(directory)["written-later"][2])
        last_used = {name: row[1] for name, row in rows(directory).items()}
        expected = {"old": begun - 900 + jump, "written-later": begun + jump, "after": begun + jump}
        assert last_used == pytest.approx(expected, abs=1.0)

        jump = 0.0
        use(host, "written-later", last_used=begun)
        eventually(lambda: rows(directory)["written-later"][1] == begun)
        application.stop()
        assert len(rows(directory)) == 3
        assert host.log_text.count("put forward") == 1


class TestRoutes:
    def test_pin_and_unpin(
        self, new_host: NewHost, directory: Path, start: Start, ask: Ask, eventually: Eventually
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

    def test_list_is_the_union(self, new_host: NewHost, start: Start, ask: Ask) -> None:
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

    def test_list_is_paged(self, new_host: NewHost, start: Start, ask: Ask) -> None:
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

    def test_delete_removes_both(self, new_host: NewHost, directory: Path, start: Start, ask: Ask) -> None:
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

    def test_a_row_alone_can_be_deleted(self, new_host: NewHost, start: Start, ask: Ask) -> None:
        host = new_host()
        application = start(host)
        for name in ("a", "b"):
            use(host, name)
        ask(application, "list")
        host.live_sessions.clear()
        assert ask(application, "delete", context_id="a") == (200, {"context_id": "a", "freed_bytes": 0})
        application.stop()

        application = start(new_host(enable_auto_memory=False))
        [entry] = ask(application, "list")[1]["contexts"]
        assert (entry["context_id"], entry["session"]["bytes"]) == ("b", 0)
        status, error = ask(application, "pin", session_id="b")
        assert (status, error["type"]) == (503, "service_unavailable")
        assert error["message"] == (
            "the memory of conversations is off: turn it on with --atlas-auto or ATLAS_AUTO"
        )
        assert ask(application, "delete", context_id="b") == (200, {"context_id": "b", "freed_bytes": 0})
        assert ask(application, "delete", context_id="b")[0] == 404

    def test_what_is_being_written_cannot_be_deleted_in_between(
        self,
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

        def slow_put(store: SessionStore, changed: list[Session]) -> None:
            time.sleep(0.05)
            put(store, changed)

        monkeypatch.setattr(SessionStore, "put", slow_put)
        for _ in range(5):
            use(host, "a")
            time.sleep(0.02)
            deletions.append(ask(application, "delete", context_id="a"))
        assert [status for status, _ in deletions] == [200] * 5
        application.stop()
        assert rows(directory) == {}

    @pytest.mark.parametrize("operation", ["pin", "unpin", "list", "delete"])
    def test_without_a_memory_path(self, start: Start, ask: Ask, operation: str) -> None:
        status, error = ask(start(FakeHost()), operation, context_id="a")
        assert (status, error["type"]) == (503, "service_unavailable")
        assert "--atlas-memory-path DIR or set ATLAS_MEMORY_PATH" in error["message"]

    def test_a_failing_server_is_an_answer(
        self, new_host: NewHost, start: Start, ask: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: object) -> SessionEdit:
            raise ServerError("not now")

        host = new_host()
        application = start(host)
        monkeypatch.setattr(host, "edit_session", fail)
        status, error = ask(application, "pin", session_id="a")
        assert (status, error["message"]) == (500, "not now")
