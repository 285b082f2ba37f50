"""Sessions: stored, restored after a restart, of several models, ended when idle."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atlas_plugin import Response, ServerError, facts
from atlas_plugin.memory import keeper as keeping
from atlas_plugin.storage.conversation_rows import ConversationRows
from atlas_plugin.storage.conversations import ConversationStore
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.memory_records import Session
from atlas_plugin.storage.sessions import SessionStore
from atlas_plugin.testing import Application, FakeHost
from tests.unit.session_rows import KEYS, OTHER_ROOT, ROOT, rows, use

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]
Eventually = Callable[[Callable[[], object]], None]


NewHost = Callable[..., FakeHost]
Ask = Callable[..., tuple[int, Any]]

pytestmark = pytest.mark.usefixtures("hurried")


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
        for number in range(facts.MAX_SESSIONS + 1):
            use(host, f"{number}")
        application.stop()
        database = Database(directory)
        store = SessionStore(database)
        first = store.page()
        assert len(first) == facts.MAX_SESSIONS
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
        status = msgspec.json.decode(call(start(new_host()), "GET", "/v1/atlas/status").body)["data"][
            "sessions"
        ]
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
            return msgspec.json.decode(call(application, "GET", "/v1/atlas/status").body)

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
            status = msgspec.json.decode(call(application, "GET", "/v1/atlas/status").body)
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


class TestSeveralModels:
    """Servers of several models on one path: each has a chain of its own in a session of both."""

    OTHER_KEYS = ("11" * 32, "22" * 32)

    def chains(self, directory: Path) -> dict[str, list[str]]:
        database = Database(directory)
        [row] = SessionStore(database).page()
        database.close()
        return {root: list(chain) for root, chain in row.chains.items()}

    def test_they_keep_theirs(
        self, new_host: NewHost, directory: Path, start: Start, eventually: Eventually, ask: Ask
    ) -> None:
        host, other = new_host(), new_host()
        assert other.memory_status is not None
        other.memory_status["root"] = OTHER_ROOT
        application, beside = start(host), start(other)
        use(host, "a")
        eventually(lambda: rows(directory).keys() == {"a"})
        use(other, "a", chain=self.OTHER_KEYS, last_used=time.time() + 1)
        both = {ROOT: list(KEYS), OTHER_ROOT: list(self.OTHER_KEYS)}
        eventually(lambda: self.chains(directory) == both)
        ask(application, "pin", session_id="a")
        eventually(lambda: rows(directory)["a"][2])
        use(other, "a", chain=self.OTHER_KEYS[:1], last_used=time.time() + 2)
        eventually(lambda: self.chains(directory) == {**both, OTHER_ROOT: list(self.OTHER_KEYS[:1])})
        assert rows(directory)["a"][2], "who was not told of a pin does not take it back"
        application.stop()
        beside.stop()

        host = new_host()
        application = start(host)
        restored = host.live_sessions["a"]
        assert sorted(restored.chain) == sorted((*KEYS, self.OTHER_KEYS[0])), "all share the disk"
        assert restored.pinned
        use(host, "a", chain=[*KEYS, self.OTHER_KEYS[0]], last_used=time.time() + 3)
        eventually(lambda: rows(directory)["a"][1] == host.live_sessions["a"].last_used)
        assert self.chains(directory) == {ROOT: list(KEYS), OTHER_ROOT: list(self.OTHER_KEYS[:1])}
        ask(application, "unpin", session_id="a")
        eventually(lambda: not rows(directory)["a"][2])
        ask(application, "delete", context_id="a")
        assert rows(directory) == {}

    def test_nothing_is_written_before_the_model_is_known(
        self, new_host: NewHost, directory: Path, start: Start, eventually: Eventually
    ) -> None:
        host = new_host()
        memory, host.memory_status = host.memory_status, None
        asked = threading.Event()
        status = host.status

        def tell() -> dict[str, Any]:
            asked.set()
            return status()

        host.status = tell  # type: ignore[method-assign]
        start(host)
        asked.clear()
        use(host, "a")
        asked.wait()
        assert rows(directory) == {}
        host.memory_status = memory
        eventually(lambda: rows(directory))
        assert self.chains(directory) == {ROOT: list(KEYS)}

    def test_no_more_than_a_few(self, directory: Path) -> None:
        database = Database(directory)
        store = SessionStore(database)
        for number in range(10):
            session = Session("a", number, 1, KEYS, float(number), False, 0, 0)
            store.put([session], {"a": KEYS}, f"{number:x}" * 64, {})
        [row] = store.page()
        assert list(row.chains) == [f"{number}" * 64 for number in (9, 8, 7, 6)]
        database.close()


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
        status = msgspec.json.decode(call(application, "GET", "/v1/atlas/status").body)
        counted = {"written": 3, "expired": 1, "failures": 0, "recorded": 0, "shared": None}
        assert status["data"]["sessions"] == counted

        def measured() -> dict[str, float]:
            families = application.plugins.metrics()
            return {family.name: family.samples[0].number for family in families}

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

    def test_conversations_of_clients_live_as_long_as_responses(
        self, new_host: NewHost, directory: Path, start: Start, eventually: Eventually
    ) -> None:
        database = Database(directory)
        ConversationStore(database).append("said", [{"role": "user"}], 1000)
        for name in ("made", "old"):
            ConversationRows(database).put(name, b"{}")
        with database.write("test") as connection:
            for name, age in (("said", 1001), ("made", 1001), ("old", 5001)):
                connection.execute(
                    "UPDATE sessions SET last_used = last_used - ? WHERE session_id = ?", (age, name)
                )
        database.close()
        host = new_host(session_ttl_s=1000.0, response_ttl_s=5000.0)
        start(host)
        eventually(lambda: sorted(rows(directory)) == ["made"])
        assert sorted(host.live_sessions) == ["made"]

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
            damaged = "INSERT INTO sessions VALUES (CAST(? AS TEXT), ?, ?, 0, 1.0, NULL)"
            connection.execute(damaged, (b"\xff", 1, 1.0))
            connection.execute(damaged, (b"tokens", "many", time.time()))
            damaged = "INSERT OR REPLACE INTO chains VALUES ('young', ?, 'late', ?)"
            for root, chain in ((ROOT, "text"), (b"\xff", b""), (OTHER_ROOT, b"too short")):
                connection.execute(damaged, (root, chain))
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
        ask: Ask,
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
        ask(application, "pin", session_id="written-later")
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
