"""What sessions said: recorded, bounded, loaded, ended with the session."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atlas_plugin import PayloadTooLarge, Response, ValidationError
from atlas_plugin.host.host import ServerCall
from atlas_plugin.memory import keeper as keeping
from atlas_plugin.storage.conversations import ConversationStore
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.memory_records import Conversation
from atlas_plugin.storage.sessions import SessionStore
from atlas_plugin.testing import Application, FakeHost

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]
Eventually = Callable[[Callable[[], object]], None]
Ask = Callable[..., tuple[int, Any]]

NewHost = Callable[..., FakeHost]

LIMIT = 1 << 20


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def exchange(number: int) -> list[dict[str, str]]:
    return [message("user", f"question {number}"), message("assistant", f"answer {number}")]


SYSTEM = message("system", "be brief")
SIZE = sum(len(msgspec.json.encode(one)) for one in exchange(0))
SYSTEM_SIZE = len(msgspec.json.encode(SYSTEM))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "memory")
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> ConversationStore:
    return ConversationStore(database)


def load(store: ConversationStore, name: str = "a") -> list[Any]:
    return [msgspec.json.decode(one) for one in store.load(name)]


class TestStore:
    def test_it_grows_and_makes_the_session(self, store: ConversationStore, database: Database) -> None:
        before = time.time()
        store.append("a", [SYSTEM, *exchange(0)], LIMIT)
        store.append("a", exchange(1), LIMIT)
        assert load(store) == [SYSTEM, *exchange(0), *exchange(1)]
        assert store.size("a") == SYSTEM_SIZE + 2 * SIZE
        [session] = SessionStore(database).page()
        assert (session.session_id, session.tokens, session.chains) == ("a", 0, {})
        assert before <= session.last_used <= time.time()
        assert (store.load("b"), store.size("b")) == ([], 0)

    def test_the_oldest_exchanges_go(self, store: ConversationStore) -> None:
        store.append("a", [SYSTEM, *exchange(0)], LIMIT)
        for number in range(1, 10):
            store.append("a", exchange(number), SYSTEM_SIZE + 3 * SIZE)
            assert store.size("a") <= SYSTEM_SIZE + 3 * SIZE
        assert load(store) == [SYSTEM, *exchange(7), *exchange(8), *exchange(9)]
        store.append("a", exchange(10) + exchange(11), SYSTEM_SIZE + SIZE + 9)
        assert load(store) == [SYSTEM, *exchange(11)]

    def test_what_follows_a_question_goes_with_it(self, store: ConversationStore) -> None:
        tool = message("tool", "42")
        store.append("a", exchange(0), LIMIT)
        store.append("a", [tool, message("assistant", "it is 42")], LIMIT)
        store.append("a", exchange(1), 2 * SIZE)
        assert load(store) == exchange(1)

    def test_an_exchange_that_cannot_fit(self, store: ConversationStore) -> None:
        store.append("a", exchange(0), LIMIT)
        with pytest.raises(PayloadTooLarge, match=f"has {SIZE} bytes .* record of {SIZE - 1} bytes"):
            store.append("a", exchange(1), SIZE - 1)
        assert load(store) == exchange(0)
        store.replace({"a": exchange(1)}, SIZE - 1)
        assert load(store) == []

    def test_replacing_writes_what_is_new(self, store: ConversationStore, database: Database) -> None:
        store.replace({"a": exchange(0) + exchange(1)}, LIMIT)
        with database.read("count") as connection:
            before = connection.total_changes
            store.replace({"a": exchange(0) + exchange(1) + exchange(2)}, LIMIT)
            assert connection.total_changes - before == 1 + 2, "the session, and two messages"
        store.replace({"a": [*exchange(0), *exchange(5)]}, LIMIT)
        assert load(store) == exchange(0) + exchange(5)
        store.replace({"a": exchange(0)[:1]}, LIMIT)
        assert load(store) == exchange(0)[:1]
        store.replace({"a": [SYSTEM, *exchange(0), *exchange(1)]}, SYSTEM_SIZE + SIZE)
        assert load(store) == [SYSTEM, *exchange(1)]
        store.replace({"a": []}, LIMIT)
        assert load(store) == []

    def test_many_are_one_transaction(self, store: ConversationStore, database: Database) -> None:
        statements: list[str] = []
        with database.read("look on") as connection:
            connection.set_trace_callback(statements.append)
        store.replace({f"{number}": exchange(number) for number in range(64)}, LIMIT)
        assert (statements.count("BEGIN IMMEDIATE"), statements.count("COMMIT")) == (1, 1)
        assert load(store, "63") == exchange(63)

    def test_it_ends_with_the_session(self, store: ConversationStore, database: Database) -> None:
        store.append("a", exchange(0), LIMIT)
        store.append("b", exchange(1), LIMIT)
        assert SessionStore(database).delete(["a"]) == 1
        assert (load(store), load(store, "b")) == ([], exchange(1))


pytestmark = pytest.mark.usefixtures("hurried")


def record(application: Application, name: str, messages: list[dict[str, str]]) -> None:
    application.call(ServerCall.RECORD, msgspec.json.encode({"session_id": name, "messages": messages}))


def history(application: Application, name: str) -> Any:
    return msgspec.json.decode(
        application.call(ServerCall.HISTORY, msgspec.json.encode({"session_id": name}))
    )["messages"]


class TestServer:
    def test_what_clients_send_is_recorded(
        self,
        new_host: NewHost,
        start: Start,
        store: ConversationStore,
        eventually: Eventually,
    ) -> None:
        host = new_host()
        application = start(host)
        host.queue.extend(Conversation(f"{number}", exchange(number)) for number in range(100))
        eventually(lambda: load(store, "99") == exchange(99))
        host.queue.append(Conversation("1", exchange(1) + exchange(2)))
        assert history(application, "1") == exchange(1) + exchange(2), "the queue is emptied first"
        host.queue.append(Conversation("1", exchange(3)))
        application.stop()
        assert load(store, "1") == exchange(3)

    def test_a_turn_writes_nothing_of_other_sessions(
        self,
        new_host: NewHost,
        start: Start,
        store: ConversationStore,
        monkeypatch: pytest.MonkeyPatch,
        ask: Ask,
    ) -> None:
        monkeypatch.setattr(keeping, "POLL_S", 3600.0)
        host = new_host()
        application = start(host)
        host.queue.extend(Conversation(f"{number}", exchange(number)) for number in range(100))
        host.queue.append(Conversation("5", exchange(7)))
        assert history(application, "5") == exchange(7)
        record(application, "6", exchange(8))
        ask(application, "load", context_id="7")
        ask(application, "delete", context_id="8")
        assert len(host.queue) == 101 - 2 - 1 - 1 - 1
        assert [load(store, f"{number}") for number in (4, 5, 6, 7, 8)] == [
            [],
            exchange(7),
            exchange(6) + exchange(8),
            exchange(7),
            [],
        ]
        application.stop()
        assert load(store, "4") == exchange(4)

    def test_a_disk_that_fails_loses_nothing(
        self,
        new_host: NewHost,
        start: Start,
        call: Call,
        store: ConversationStore,
        eventually: Eventually,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        host = new_host()
        application = start(host)
        with monkeypatch.context() as patch:
            patch.setattr("atlas_plugin.storage.conversations._INSERT", "no SQL")
            host.queue.extend(Conversation(f"{number}", exchange(number)) for number in range(100))
            eventually(lambda: b"is not saved yet: Failed to record" in status(application, call).body)
            assert len(host.queue) == 36, "no more is taken than can be kept"
        eventually(lambda: load(store, "99") == exchange(99))
        eventually(lambda: b"healthy" in status(application, call).body)

    def test_what_cannot_be_recorded_holds_nothing_up(
        self, new_host: NewHost, start: Start, store: ConversationStore, eventually: Eventually
    ) -> None:
        deep: Any = {}
        for _ in range(100_000):
            deep = {"": deep}
        host = new_host()
        application = start(host)
        for name, messages in (("bad", [deep]), ("worse", [5])):
            host.queue.append(Conversation(name, messages))  # type: ignore[arg-type]
        host.queue.append(Conversation("good", exchange(0)))
        eventually(lambda: load(store, "good") == exchange(0))
        assert (load(store, "bad"), load(store, "worse")) == ([], [])
        eventually(lambda: host.log_text.count("Validation error in field 'messages'") == 2)
        with pytest.raises(ValidationError, match="'messages': cannot be recorded"):
            record(application, "a", [5])  # type: ignore[list-item]

    def test_load_shows_state_and_record(self, new_host: NewHost, start: Start, ask: Ask) -> None:
        host = new_host()
        application = start(host)
        assert ask(application, "load", context_id="a")[0] == 404
        record(application, "a", exchange(0))
        host.use_session("a", tokens=7, ram_bytes=10, last_used=time.time(), pinned=True)
        code, loaded = ask(application, "load", context_id="a")
        assert code == 200
        assert [loaded[key] for key in ("context_id", "bytes", "created", "updated")] == [
            "a",
            None,
            None,
            None,
        ]
        assert loaded["state"] == {
            "conversation_history": exchange(0),
            "user_preferences": {},
            "context_memory": {},
        }
        session = loaded["session"]
        assert (session["tokens"], session["bytes"], session["pinned"]) == (7, 10, True)
        assert session["conversation_history"] == exchange(0)
        state = {"conversation_history": ["mine"], "more": 1}
        assert ask(application, "save", context_id="a", state=state)[0] == 200
        record(application, "a", exchange(1))
        loaded = ask(application, "load", context_id="a")[1]
        assert (loaded["state"], loaded["bytes"]) == (state, len(msgspec.json.encode(state)))
        assert loaded["session"]["conversation_history"] == exchange(0) + exchange(1)
        freed = ask(application, "delete", context_id="a")[1]["freed_bytes"]
        assert freed == len(msgspec.json.encode(state)) + 2 * SIZE + 10
        assert ask(application, "load", context_id="a")[0] == 404
        assert history(application, "a") == []

    def test_a_queued_conversation_does_not_bring_a_deleted_session_back(
        self, new_host: NewHost, start: Start, ask: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keeping, "POLL_S", 3600.0)
        host = new_host()
        application = start(host)
        host.queue.append(Conversation("a", exchange(0)))
        assert ask(application, "delete", context_id="a") == (200, {"context_id": "a", "freed_bytes": SIZE})
        assert ask(application, "list")[1]["contexts"] == []

    def test_sessions_without_kv_state(
        self, new_host: NewHost, start: Start, ask: Ask, eventually: Eventually
    ) -> None:
        host = new_host(enable_auto_memory=False)
        application = start(host)
        record(application, "a", exchange(0))
        loaded = ask(application, "load", context_id="a")[1]
        assert (loaded["session"]["bytes"], loaded["session"]["conversation_history"]) == (0, exchange(0))
        host.change_settings({"session_ttl_s": 0.001})
        application.plugins.hooks.ask.reload(changed={"session_ttl_s": 0.001})
        eventually(lambda: ask(application, "load", context_id="a")[0] == 404)

    def test_sessions_beyond_the_number(
        self, new_host: NewHost, start: Start, ask: Ask, eventually: Eventually
    ) -> None:
        host = new_host(max_sessions=3)
        application = start(host)
        ask(application, "save", context_id="1", state={})
        now = time.time()
        for number in range(6):
            host.use_session(f"{number}", last_used=now - 100 + number, pinned=number == 0)
        record(application, "5", exchange(5))
        eventually(lambda: sorted(host.live_sessions) == ["0", "4", "5"])
        names = [entry["context_id"] for entry in ask(application, "list")[1]["contexts"]]
        assert names == ["0", "1", "4", "5"], "what a user saved stays"
        assert history(application, "5") == exchange(5)
        host.change_settings({"max_sessions": 1})
        application.plugins.hooks.ask.reload(changed={"max_sessions": 1})
        eventually(lambda: sorted(host.live_sessions) == ["0"])
        assert history(application, "5") == []


def status(application: Application, call: Call) -> Response:
    return call(application, "GET", "/v1/atlas/status")
