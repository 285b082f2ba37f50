"""Conversations over the records of sessions: kept, aged, shared, and in a file of an older version."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from atlas_plugin import NotFoundError, PayloadTooLarge, Response, ServerError, ValidationError, json_text
from atlas_plugin.host.host import ServerCall
from atlas_plugin.http import parse_query
from atlas_plugin.storage.conversation_rows import ConversationRows
from atlas_plugin.storage.conversations import ConversationStore
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.sessions import SessionStore
from atlas_plugin.testing import Application, FakeHost
from tests.unit.shared_store import Servers

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]
Eventually = Callable[[Callable[[], object]], None]

ROOT = "/v1/conversations"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "memory")
    yield opened
    opened.close()


class TestRows:
    def test_made_and_changed(self, database: Database) -> None:
        rows = ConversationRows(database)
        assert rows.find("a") is None
        rows.put("a", b'{"x":"1"}')
        made = rows.find("a")
        assert made is not None
        assert abs(made.created_at - time.time()) < 60
        rows.put("a", b"{}")
        assert rows.find("a") == (made.created_at, b"{}")
        ConversationStore(database).append("b", [user("1")], 1000)
        found = rows.find("b")
        assert found is not None
        assert found.metadata is None

    def test_rows_keep_what_was_said(self, database: Database) -> None:
        rows, store = ConversationRows(database), ConversationStore(database)
        store.append("a", [user("1"), user("2"), user("3")], 1000)
        rows.replace("a", 1, None)
        rows.replace("a", 2, b'{"role":"user","content":"4"}')
        assert [(row.position, json_text.decode(row.data)["content"]) for row in rows.rows("a")] == [
            (0, "1"),
            (2, "4"),
        ]
        store.append("a", [user("5")], 1000)
        assert rows.rows("a")[-1].position == 3

    def test_those_of_clients_age_otherwise(self, database: Database) -> None:
        rows, sessions = ConversationRows(database), SessionStore(database)
        rows.put("made", b"{}")
        ConversationStore(database).append("said", [user("1")], 1000)
        later = time.time() + 1
        assert sessions.idle_since(later) == ["said"]
        assert sessions.idle_since(later, conversations=True) == ["made"]
        assert sessions.idle_longest_beyond(1) == []
        assert sessions.idle_longest_beyond(0) == ["said"]
        assert sessions.idle_longest_beyond(0, conversations=True) == ["made"]
        assert {row.session_id: row.is_conversation for row in sessions.page()} == {
            "made": True,
            "said": False,
        }
        assert [row.is_conversation for row in sessions.idle_page("", 10)] == [True, False]

    def test_what_clients_send_whole_leaves_theirs_alone(self, database: Database) -> None:
        store = ConversationStore(database)
        ConversationRows(database).put("made", b"{}")
        store.append("made", [user("1")], 1000)
        assert store.replace({"made": [user("2")], "said": [user("2")]}, 1000) == {}
        assert [len(store.load(name)) for name in ("made", "said")] == [1, 1]
        assert b'"1"' in store.load("made")[0]

    def test_one_transaction_within_another(self, database: Database) -> None:
        rows, store = ConversationRows(database), ConversationStore(database)

        def fail() -> None:
            with database.write("try"):
                rows.put("a", b"{}")
                store.append("a", [user("1")], 1000)
                raise ValueError("in the middle")

        with pytest.raises(ValueError, match="in the middle"):
            fail()
        assert rows.find("a") is None
        with database.write("do"):
            rows.put("a", b"{}")
            store.append("a", [user("1")], 1000)
        assert len(rows.rows("a")) == 1

    def test_an_error_within_another_transaction(self, database: Database) -> None:
        rows = ConversationRows(database)

        def fail() -> None:
            with database.write("try"):
                rows.put("a", b"{}")
                with database.write("break") as connection:
                    connection.execute("INSERT INTO nowhere VALUES (1)")

        with pytest.raises(ServerError, match="Failed to try: no such table"):
            fail()
        assert rows.find("a") is None


FIFTH = """
CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY, tokens INTEGER NOT NULL, last_used REAL NOT NULL, pinned INTEGER NOT NULL,
    created_at REAL NOT NULL
);
CREATE TABLE messages (
    session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, position INTEGER NOT NULL,
    is_user INTEGER NOT NULL, message BLOB NOT NULL, turn TEXT, PRIMARY KEY (session_id, position)
);
CREATE TABLE responses (
    tenant TEXT NOT NULL, id TEXT NOT NULL, previous TEXT NOT NULL, created REAL NOT NULL,
    record BLOB NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE INDEX idle_sessions ON sessions (last_used) WHERE NOT pinned;
INSERT INTO sessions VALUES ('a', 5, 1000.0, 1, 500.0);
INSERT INTO messages VALUES ('a', 0, 1, '{"role":"user","content":"1"}', NULL);
PRAGMA user_version = 5;
"""


def test_a_file_of_the_fifth_schema(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "contexts.sqlite3")) as connection:
        connection.executescript(FIFTH)
    database = Database(tmp_path)
    rows = ConversationRows(database)
    assert rows.find("a") == (500.0, None)
    assert [row.data for row in rows.rows("a")] == [b'{"role":"user","content":"1"}']
    rows.put("a", b'{"x":"1"}')
    assert rows.find("a") == (500.0, b'{"x":"1"}')
    [row] = SessionStore(database).page()
    assert (row.tokens, row.pinned, row.is_conversation) == (5, True, True)
    database.close()


class Client:
    """Asks an application as clients and the server do."""

    def __init__(self, application: Application, call: Call) -> None:
        self._application = application
        self._call = call

    def __call__(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        data = msgspec.json.encode(body) if method == "POST" else b""
        path, _, query = path.partition("?")
        answer = self._call(self._application, method, path, body=data, query=parse_query(query))
        return answer.status, msgspec.json.decode(answer.body)

    def server(self, what: ServerCall, **argument: Any) -> Any:
        return msgspec.json.decode(self._application.call(what, msgspec.json.encode(argument)))


@pytest.fixture
def client(start: Start, call: Call, tmp_path: Path) -> Client:
    return Client(start(FakeHost(memory_save_path=str(tmp_path / "memory"), max_state_bytes=4096)), call)


def keep(client: Client, name: str, asked: list[Any], output: list[Any], **fields: Any) -> Any:
    response = {"id": "resp_1", "store": True, "output": output, "conversation": {"id": name}, **fields}
    fields = {"input": asked, "response": response, "exact": None, "last_event": -1}
    return client.server(ServerCall.KEEP_RESPONSE, tenant="", session_id=name, **fields)


ANSWER = {
    "id": "msg_2",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Ho"}],
}


class TestOverTheServersCalls:
    def test_an_exchange(self, client: Client) -> None:
        _, made = client("POST", ROOT, metadata={"a": "b"})
        name = made["id"]
        assert keep(client, name, [user("Hi")], [ANSWER]) == {"degraded": None}
        history = client.server(ServerCall.HISTORY, session_id=name, references=["msg_2"])
        assert history["messages"] == [user("Hi"), {"role": "assistant", "content": "Ho"}]
        assert [item["role"] for item in history["referenced"]] == ["assistant"]
        assert "id" not in history["referenced"][0]
        status, response = client("GET", "/v1/responses/resp_1")
        assert (status, response["conversation"]) == (200, {"id": name})
        with pytest.raises(ValidationError, match=f"previous_response_id.*conversation '{name}'"):
            client.server(ServerCall.RESPONSE_ITEMS, tenant="", response_id="resp_1", references=[])

    def test_one_that_was_deleted_meanwhile(self, client: Client) -> None:
        name = client("POST", ROOT)[1]["id"]
        client("DELETE", f"{ROOT}/{name}")
        assert "was deleted" in keep(client, name, [user("Hi")], [ANSWER])["degraded"]
        assert client("GET", f"{ROOT}/{name}")[0] == 404
        with pytest.raises(NotFoundError, match=name):
            client.server(ServerCall.HISTORY, session_id=name, references=[])

    def test_an_exchange_that_is_too_large(self, client: Client) -> None:
        name = client("POST", ROOT)[1]["id"]
        assert "4096 bytes" in keep(client, name, [user("x" * 5000)], [ANSWER])["degraded"]
        assert client("GET", f"{ROOT}/{name}/items")[1]["data"] == []
        assert client("GET", "/v1/responses/resp_1")[0] == 200
        assert client("POST", f"{ROOT}/{name}/items", items=[user("x" * 5000)])[0] == PayloadTooLarge.status

    def test_what_is_there_is_not_put_there_again(self, client: Client) -> None:
        name = client("POST", ROOT)[1]["id"]
        keep(client, name, [{**ANSWER, "id": "msg_1"}, user("Hi")], [ANSWER])
        keep(client, name, [{**ANSWER, "id": "msg_1"}, user("Ha")], [{**ANSWER, "id": "msg_3"}], id="resp_2")
        _, listed = client(
            "GET",
            f"{ROOT}/{name}/items",
        )
        assert len({item["id"] for item in listed["data"]}) == len(listed["data"]) == 5

    def test_arguments_that_are_cut_off(self, client: Client) -> None:
        name = client("POST", ROOT)[1]["id"]
        call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a'}
        assert "no JSON" in keep(client, name, [user("Hi")], [call])["degraded"]
        assert client("GET", f"{ROOT}/{name}/items")[1]["data"] == []


def test_one_of_a_messages_items_is_deleted(client: Client) -> None:
    calls = [
        {"type": "function", "id": f"call_{n}", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)
    ]
    said = [user("Hi"), {"role": "assistant", "content": "I look.", "tool_calls": calls}]
    client.server(ServerCall.RECORD, session_id="s", messages=said)
    its = f"{ROOT}/s/items"
    _, text, first, second = client("GET", f"{its}?order=asc")[1]["data"]
    for gone in (text, first):
        assert client("DELETE", f"{its}/{gone['id']}")[1]["object"] == "conversation"
    assert client("GET", f"{its}?order=asc")[1]["data"][1:] == [second]
    assert client("DELETE", f"{its}/{first['id']}")[0] == 404
    history = client.server(ServerCall.HISTORY, session_id="s")["messages"]
    assert history == [said[0], {"role": "assistant", "content": "", "tool_calls": calls[1:]}]


class TestShared:
    """Of servers that share a store."""

    ITEMS = (
        {"id": "msg_1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"id": "fc_2", "type": "function_call", "call_id": "call_2", "name": "f", "arguments": "{}"},
    )
    RESULT: ClassVar[dict[str, Any]] = {
        "id": "fco_1",
        "type": "function_call_output",
        "call_id": "call_1",
        "output": "7",
    }

    def test_items_are_turns(self, servers: Servers) -> None:
        a, b = servers("a"), servers("b")
        assert a.add(list(self.ITEMS)) is None
        b.shared.refresh("s")
        assert b.conversations.load("s") == a.conversations.load("s")
        late, early = [user("late")], [self.RESULT]
        turn = a.shared.new_turn()
        a.conversations.append("s", early, 10**6, turn)
        b.add(late)
        a.shared.share("s")
        b.shared.refresh("s")
        assert [json_text.decode(one).get("id") for one in b.conversations.load("s")] == [
            "msg_1",
            "fc_1",
            "fc_2",
            "fco_1",
            None,
        ], "a result stands behind its call"

    def test_instructions_in_items_stay_where_they_are(self, servers: Servers) -> None:
        a, b = servers("a"), servers("b")
        a.add(list(self.ITEMS))
        told = {"id": "msg_9", "type": "message", "role": "developer", "content": []}
        a.add([told])
        b.shared.refresh("s")
        assert json_text.decode(b.conversations.load("s")[-1]) == told

    def test_metadata_are_known_to_all(self, servers: Servers) -> None:
        a, b = servers("a"), servers("b")
        rows = [ConversationRows(server.database) for server in (a, b)]
        for metadata in (b'{"x":"1"}', b'{"x":"2"}'):
            rows[0].put("s", metadata)
            a.names.note_used(["s"], at_once=True)
            a.names.sync()
            b.names.describe(["s"])
            found = rows[1].find("s")
            assert found is not None
            assert found.metadata == metadata

    def test_an_item_that_is_deleted_is_gone_everywhere(self, servers: Servers) -> None:
        a, b = servers("a"), servers("b")
        for text in "123":
            a.say(text)
        assert b.record() == ["1", "1!", "2", "2!", "3", "3!"]
        a_rows = ConversationRows(a.database)
        a_rows.replace("s", 2, None)
        a.shared.begin_anew("s")
        assert a.shared.share("s") is None
        assert a.here() == ["1", "1!", "2!", "3", "3!"]
        assert b.record() == a.here()
        b.say("4")
        assert a.record() == ["1", "1!", "2!", "3", "3!", "4", "4!"]

    def test_a_deletion_waits_for_the_store(self, servers: Servers, store: Any) -> None:
        a, b = servers("a"), servers("b")
        a.say("1")
        b.record()
        store.problem = "nobody answers"
        ConversationRows(a.database).replace("s", 0, None)
        a.shared.begin_anew("s")
        assert "nobody answers" in (a.shared.share("s") or "")
        store.problem = None
        a.shared.sync()
        assert b.record() == a.record() == ["1!"]
        assert not [turn for turn in store.turns() if "1" in [m["content"] for m in turn["messages"]]]
