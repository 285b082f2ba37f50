"""What the holder of one API key can see and use of what belongs to another: nothing."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.completions import BODIES, ENDLESS_OPTIONS, ROUTES, endless
from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    ASK_NAME,
    Answer,
    Conversation,
    chat,
    flush,
    memory_options,
    wait_for_memory,
)
from tests.server.harness import Server
from tests.server.keys import ADA, ADMIN, BEN, key_options, with_key

PREFIX = "/v1/atlas"


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("tenants")
    with Server(key_options(directory), directory=directory) as running:
        yield running


@pytest.fixture
def ada(shared_server: Server) -> Server:
    return with_key(shared_server, ADA)


@pytest.fixture
def ben(shared_server: Server) -> Server:
    return with_key(shared_server, BEN)


@pytest.fixture
def admin(shared_server: Server) -> Server:
    return with_key(shared_server, ADMIN)


def perform(caller: Server, operation: str, **fields: Any) -> httpx.Response:
    return caller.post(f"{PREFIX}/memory/{operation}", fields)


def data(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and type of an error in the one format."""
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "type", "timestamp"}
    assert error["code"] == answer.status_code
    return answer.status_code, error["type"]


def listed(caller: Server, **fields: Any) -> list[tuple[str, str]]:
    """Tenant and name of all that a caller can list."""
    found: list[tuple[str, str]] = []
    cursor = None
    while True:
        page = data(perform(caller, "list", limit=2, cursor=cursor, **fields))
        found += [(entry.get("tenant", ""), entry["context_id"]) for entry in page["contexts"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def use_session(caller: Server, name: str, **fields: Any) -> Answer:
    return chat(caller, Conversation(0).asking(ASK_NAME), atlas={"session_id": name}, **fields)


class TestAuthentication:
    def test_no_route_answers_without_a_key(self, shared_server: Server, ada: Server) -> None:
        operations = [
            (method, path)
            for path, methods in ada.get(f"{PREFIX}/openapi.json").json()["paths"].items()
            for method in methods
            if path != f"{PREFIX}/dashboard"  # holds nothing, and asks for the key
        ]
        assert ("get", f"{PREFIX}/status") in operations
        assert ("post", "/v1/messages") in operations
        more = [("get", f"{PREFIX}/none"), ("delete", f"{PREFIX}/status"), ("get", f"{PREFIX}/x/{ADA}")]
        for key in (None, "wrong", f"{ADA},{BEN}", ADA[:-1], ADA.upper()):
            for header in ("Authorization", "X-Api-Key"):
                caller = with_key(shared_server, key, header)
                for method, path in operations + more:
                    content = "{}" if method == "post" else None
                    answer = caller.client.request(method.upper(), path, content=content)
                    assert answer.status_code == 401, (key, method, path, answer.text)
                    if path.startswith(PREFIX):
                        assert refusal(answer) == (401, "authentication_error")
                    assert ADA not in answer.text

    def test_both_headers_name_the_same_owner(self, shared_server: Server, ada: Server) -> None:
        perform(ada, "save", context_id="headers", state={"n": 1})
        for header in ("X-Api-Key", "Authorization"):
            caller = with_key(shared_server, ADA, header)
            assert data(perform(caller, "load", context_id="headers"))["state"] == {"n": 1}
            other = with_key(shared_server, BEN, header)
            assert perform(other, "load", context_id="headers").status_code == 404

    @pytest.mark.parametrize(
        "headers",
        [
            [f"Authorization: Bearer {BEN}", f"Authorization: Bearer {ADA}"],
            [f"authorization: Bearer {BEN}", f"Authorization: Bearer {ADA}"],
            [f"Authorization: Bearer {BEN}", f"authorization: Bearer {ADMIN}"],
            [f"X-Api-Key: {BEN}", f"x-api-key: {ADA}"],
            [f"X-Api-Key: {ADA}", f"Authorization: Bearer {BEN}"],
            [f"Authorization: Bearer {BEN}", f"X-Api-Key: {ADMIN}"],
        ],
    )
    def test_the_header_that_is_checked_says_who_it_is(
        self, shared_server: Server, ada: Server, headers: list[str]
    ) -> None:
        perform(ada, "save", context_id="repeated-header", state={})
        body = '{"context_id": "repeated-header"}'
        head = [f"POST {PREFIX}/memory/load HTTP/1.1", "Host: localhost", *headers, "Connection: close"]
        with socket.create_connection(("127.0.0.1", shared_server.port), timeout=30) as connection:
            connection.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", body]).encode())
            status_line = connection.makefile("rb").readline()
        assert status_line == b"HTTP/1.1 404 Not Found\r\n"


class TestNames:
    """Saved contexts and sessions."""

    def test_another_key_finds_nothing(self, ada: Server, ben: Server) -> None:
        perform(ada, "save", context_id="private", state={"secret": 1})
        use_session(ada, "private-session")
        for name in ("private", "private-session"):
            for operation, field in (
                ("load", "context_id"),
                ("delete", "context_id"),
                ("pin", "session_id"),
                ("unpin", "session_id"),
            ):
                answer, none = (
                    perform(ben, operation, **{field: asked}) for asked in (name, "there-is-none")
                )
                assert refusal(answer) == refusal(none) == (404, "not_found")
                assert (
                    answer.json()["error"]["message"].replace(name, "there-is-none")
                    == (none.json()["error"]["message"])
                )
        assert data(perform(ada, "load", context_id="private"))["state"] == {"secret": 1}
        assert data(perform(ada, "load", context_id="private-session"))["session"]["pinned"] is False

    def test_one_name_is_as_many_things_as_there_are_keys(
        self, ada: Server, ben: Server, admin: Server
    ) -> None:
        callers = {"ada": ada, "ben": ben, "admin": admin}
        for owner, caller in callers.items():
            saved = data(perform(caller, "save", context_id="same", state={"of": owner}))
            assert saved["context_id"] == "same"
        for owner, caller in callers.items():
            assert data(perform(caller, "load", context_id="same"))["state"] == {"of": owner}
        assert data(perform(ada, "delete", context_id="same"))["freed_bytes"] > 0
        assert perform(ada, "load", context_id="same").status_code == 404
        assert data(perform(ben, "load", context_id="same"))["state"] == {"of": "ben"}

    def test_lists(self, ada: Server, ben: Server, admin: Server) -> None:
        for caller, names in ((ada, ["list-a", "list-b", "list-e"]), (ben, ["list-b", "list-c", "list-d"])):
            for name in names:
                perform(caller, "save", context_id=name, state={})
        use_session(ada, "list-session")
        only = {name for _, name in listed(ada)}
        assert {"list-a", "list-b", "list-e", "list-session"} <= only
        assert only.isdisjoint({"list-c", "list-d"})
        assert {name for _, name in listed(ben)}.isdisjoint({"list-a", "list-e", "list-session"})
        assert {tenant for tenant, _ in listed(ada) + listed(ben)} == {""}

        everything = listed(admin)
        owners = {name: {owner for owner, other in everything if other == name} for _, name in everything}
        assert len(owners["list-b"]) == 2
        of_ada, of_ben = owners["list-session"].pop(), owners["list-c"].pop()
        assert owners["list-b"] == {of_ada, of_ben}
        assert [name for _, name in listed(admin, tenant=of_ada)] == [name for _, name in listed(ada)]
        assert ADA not in of_ada

    def test_admin_works_on_what_belongs_to_a_key(self, ada: Server, ben: Server, admin: Server) -> None:
        perform(ada, "save", context_id="managed", state={"n": 1})
        use_session(ada, "managed")
        tenant = next(owner for owner, name in listed(admin) if name == "managed")
        named = {"context_id": "managed", "tenant": tenant}
        assert perform(admin, "load", context_id="managed").status_code == 404
        assert data(perform(admin, "load", **named))["state"] == {"n": 1}
        assert data(perform(admin, "pin", **named)) == {"session_id": "managed", "pinned": True}
        assert data(perform(ada, "load", context_id="managed"))["session"]["pinned"] is True
        for caller in (ada, ben):
            for operation in ("load", "delete", "pin", "unpin"):
                assert refusal(perform(caller, operation, **named)) == (403, "authentication_error")
            assert refusal(perform(caller, "list", tenant=tenant)) == (403, "authentication_error")
            assert refusal(perform(caller, "save", **named, state={})) == (403, "authentication_error")
        assert data(perform(admin, "delete", **named))["context_id"] == "managed"
        assert perform(ada, "load", context_id="managed").status_code == 404

    def test_cursors(self, ada: Server, ben: Server, admin: Server) -> None:
        for caller in (ada, ben):
            for number in range(3):
                perform(caller, "save", context_id=f"cursor-{number}", state={})
        for caller in (ada, ben):
            cursor = data(perform(admin, "list", limit=3))["next_cursor"]
            assert refusal(perform(caller, "list", cursor=cursor)) == (400, "validation_error")
        cursor = data(perform(ada, "list", limit=1))["next_cursor"]
        own = {name for _, name in listed(ben)}
        page = data(perform(ben, "list", cursor=cursor))["contexts"]
        assert {entry["context_id"] for entry in page} <= own
        assert {entry.get("tenant", "") for entry in page} <= {""}

    def test_recorded_history(self, ada: Server, ben: Server, admin: Server) -> None:
        def say(caller: Server, text: str) -> Answer:
            atlas = {"session_id": "told", "history": "server"}
            return chat(caller, [{"role": "user", "content": text}], atlas=atlas)

        say(ada, "My name is Tovi. I live in Lima.")
        first = say(ben, ASK_NAME)
        alone = chat(ben, [{"role": "user", "content": ASK_NAME}])
        assert (first.prompt, first.text) == (alone.prompt, alone.text)
        for caller, count in ((ada, 2), (ben, 2), (admin, None)):
            answer = perform(caller, "load", context_id="told")
            if count is None:
                assert answer.status_code == 404
            else:
                assert len(data(answer)["session"]["conversation_history"]) == count

    @pytest.mark.parametrize("path", ROUTES)
    def test_conversation_header_names_the_owners_session(self, ada: Server, ben: Server, path: str) -> None:
        name = "header" + path.replace("/", ".")
        answer = ada.client.post(path, json=BODIES[path], headers={"X-Conversation-Id": name})
        assert answer.status_code == 200, answer.text
        ada.wait_until(lambda: name in {found for _, found in listed(ada)})
        assert name not in {found for _, found in listed(ben)}


class TestStreams:
    """llama-server keeps what it streamed for who sent X-Conversation-Id, to be read again."""

    def test_are_their_owners(self, ada: Server, ben: Server) -> None:
        name = "streamed"
        body = {**BODIES["/v1/chat/completions"], "stream": True}
        sent = ada.client.post("/v1/chat/completions", json=body, headers={"X-Conversation-Id": name})
        where = {"conv_id": name, "from": "0"}
        lookup = {"conversation_ids": [name]}
        assert ada.get("/v1/stream", params=where).text == sent.text
        assert [each["conversation_id"] for each in ada.post("/v1/streams/lookup", lookup).json()] == [name]
        assert ben.get("/v1/stream", params=where).status_code == 404
        assert ben.post("/v1/streams/lookup", lookup).json() == []
        ben.client.delete("/v1/stream", params=where)
        ben.client.post("/v1/chat/completions", json=body, headers={"X-Conversation-Id": name})
        assert ada.get("/v1/stream", params=where).text == sent.text


class TestState:
    """KV of slots, of RAM and of the disk."""

    def test_another_key_reuses_nothing(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server([*key_options(tmp_path), "-np", "1"])
        ada, ben, admin = (with_key(server, key) for key in (ADA, BEN, ADMIN))
        told = Conversation(1)
        first = told.ask(ada)
        prompt = told.asking(ASK_CITY)

        # the slot
        for caller in (ben, admin):
            assert chat(caller, prompt, atlas={}).reused == 0
        own = chat(ada, prompt, atlas={})
        assert (own.recalls(first), own.layer) == (True, 1)

        # RAM: each now finds its own there
        for caller in (ben, admin, ada, ben):
            again = chat(caller, prompt, atlas={})
            assert (again.recalls(first), again.layer) == (True, 1)
            assert again.text == own.text

        # the disk
        other = Conversation(2)
        other.ask(ada)
        flush(ada)
        server.kill()
        server.start()
        wait_for_memory(admin)
        for caller in (ben, admin):
            assert chat(caller, other.asking(ASK_CITY), atlas={}).reused == 0
        back = chat(ada, other.asking(ASK_CITY), atlas={})
        assert (back.recalls(own), back.layer) == (True, 1)
        assert back.text == chat(ben, other.asking(ASK_CITY)).text

    def test_a_flush_waits_for_time_between_others_tokens(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        server = start_server([*key_options(tmp_path), *ENDLESS_OPTIONS])
        ada, ben, admin = (with_key(server, key) for key in (ADA, BEN, ADMIN))
        told = Conversation(6)
        with endless(ben):
            first = told.ask(ada)
            flush(ada)
            server.kill()
        server.start()
        wait_for_memory(admin)
        assert chat(ada, told.asking(ASK_CITY), atlas={}).recalls(first)

    def test_another_key_reuses_nothing_without_a_memory(self, start_server: StartServer) -> None:
        """And each finds its own again, as stock's prompt cache keeps it."""
        server = start_server(["-np", "1", "--api-key", f"{ADA},{BEN}"])
        ada, ben = with_key(server, ADA), with_key(server, BEN)
        told = Conversation(3)
        first = told.ask(ada)
        assert chat(ben, told.messages).reused == 0
        assert told.ask(ada).recalls(first)

    def test_names_outlive_a_restart(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(key_options(tmp_path))
        ada, ben = with_key(server, ADA), with_key(server, BEN)
        use_session(ada, "stays")
        server.wait_until(lambda: ("", "stays") in listed(ada))
        server.stop()
        server.start()
        assert ("", "stays") in listed(ada)
        assert listed(ben) == []
        assert ADA.encode() not in b"".join(
            file.read_bytes() for file in (tmp_path / "memory").rglob("*") if file.is_file()
        )

    def test_keys_that_share(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server([*key_options(tmp_path), "--atlas-share-between-keys"])
        ada, ben, admin = (with_key(server, key) for key in (ADA, BEN, ADMIN))
        told = Conversation(4)
        first = told.ask(ada, atlas={"session_id": "shared"})
        for caller in (ben, admin):
            assert chat(caller, told.asking(ASK_CITY), atlas={}).recalls(first)
            assert data(perform(caller, "load", context_id="shared"))["session"]["tokens"] > 0
            assert ("", "shared") in listed(caller)
        assert refusal(ben.post(f"{PREFIX}/config", {"settings": {"log_level": "info"}}))[0] == 403

    def test_one_key_has_everything(self, start_server: StartServer, tmp_path: Path) -> None:
        told = Conversation(5)
        alone = start_server(memory_options(tmp_path))
        first = told.ask(alone, atlas={"session_id": "before"})
        flush(alone)
        alone.stop()
        keyed = start_server(memory_options(tmp_path), api_key=ADA)
        wait_for_memory(keyed)
        assert chat(keyed, told.asking(ASK_CITY), atlas={}).recalls(first)
        assert listed(keyed) == [("", "before")]
        assert data(keyed.post(f"{PREFIX}/config", {"settings": {"log_level": "warn"}}))["changed"]


class TestSettings:
    def test_only_the_admin_changes_them(self, ada: Server, ben: Server, admin: Server) -> None:
        body = {"settings": {"shutdown_timeout_s": 3}}
        for caller in (ada, ben):
            assert refusal(caller.post(f"{PREFIX}/config", body)) == (403, "authentication_error")
        assert data(admin.post(f"{PREFIX}/config", body)) == {"changed": {"shutdown_timeout_s": 3.0}}

    def test_no_answer_shows_a_key(self, admin: Server) -> None:
        for path in ("config", "status", "plugins", "openapi.json"):
            answer = admin.get(f"{PREFIX}/{path}")
            assert answer.status_code == 200
            assert not any(key in answer.text for key in (ADA, BEN, ADMIN))
        assert not any(key in admin.log for key in (ADA, BEN, ADMIN))
