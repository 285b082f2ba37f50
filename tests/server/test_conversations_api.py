"""/v1/conversations, and what goes on from one: /v1/responses, and /v1/chat/completions as a session."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.server.completions import ENDLESS_OPTIONS, complete
from tests.server.conformance import data_of, operate, pool
from tests.server.conftest import StartServer
from tests.server.conversations import ASK_NAME, GREEDY, filler, flush, kill_and_start, memory_options
from tests.server.harness import Server, stream_events
from tests.server.keys import ADA, ADMIN, BEN, key_options, with_key

ROOT, RESPONSES, CHAT = "/v1/conversations", "/v1/responses", "/v1/chat/completions"
NAME = "My name is Nora. I live in Oslo."
FIELDS: dict[str, Any] = {"model": "any", "temperature": 0, "max_output_tokens": 32}


def client_of(server: Server) -> Any:
    """The official SDK; of its types, which are many, nothing is asked here."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def make(server: Server, *items: dict[str, Any]) -> str:
    made = server.post(ROOT, {"items": list(items)})
    assert made.status_code == 200, made.text
    name: str = made.json()["id"]
    return name


def respond(server: Server, conversation: str, said: Any, **fields: Any) -> dict[str, Any]:
    answer = server.post(RESPONSES, {**FIELDS, "input": said, "conversation": conversation, **fields})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", []))


def chat(server: Server, session: str, text: str) -> dict[str, Any]:
    atlas = {"session_id": session, "history": "server"}
    answer: dict[str, Any] = complete(server, CHAT, messages=[user(text)], **GREEDY, atlas=atlas)
    return answer


def items(server: Server, conversation: str) -> list[dict[str, Any]]:
    listed = server.get(f"{ROOT}/{conversation}/items?order=asc&limit=100")
    assert listed.status_code == 200, listed.text
    found: list[dict[str, Any]] = listed.json()["data"]
    return found


def said(server: Server, conversation: str) -> list[tuple[str, str]]:
    """Who said what, of items that are messages."""
    return [(item["role"], item["content"][0]["text"]) for item in items(server, conversation)]


def refused(answer: httpx.Response, status: int, param: str | None = None) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.get("param") == param
    message: str = error["message"]
    return message


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("conversations")
    options = [*memory_options(directory), *ENDLESS_OPTIONS, "-np", "2"]
    with Server(options, directory=directory) as running:
        yield running


class TestWithTheSdk:
    def test_a_conversation(self, keeping: Server) -> None:
        with client_of(keeping) as client:
            made = client.conversations.create(metadata={"topic": "names"}, items=[user(NAME)])
            assert (made.object, made.metadata) == ("conversation", {"topic": "names"})
            assert made.id.startswith("conv_")
            assert client.conversations.retrieve(made.id) == made
            changed = client.conversations.update(made.id, metadata={"topic": "places"})
            assert (changed.id, changed.created_at, changed.metadata) == (
                made.id,
                made.created_at,
                {"topic": "places"},
            )
            gone = client.conversations.delete(made.id)
            assert (gone.id, gone.object, gone.deleted) == (made.id, "conversation.deleted", True)
            with pytest.raises(openai.NotFoundError, match=made.id):
                client.conversations.retrieve(made.id)

    def test_its_items(self, keeping: Server) -> None:
        with client_of(keeping) as client:
            name = client.conversations.create().id
            its = client.conversations.items
            added = its.create(
                name, items=[user("One."), {"role": "assistant", "content": "Two."}, user("3.")]
            )
            first, second, third = added.data
            assert (added.first_id, added.last_id, added.has_more) == (first.id, third.id, False)
            assert [item.id for item in its.list(name)] == [third.id, second.id, first.id]
            assert [item.id for item in its.list(name, order="asc", limit=2)] == [
                first.id,
                second.id,
                third.id,
            ]
            assert [item.id for item in its.list(name, order="asc", after=first.id)] == [second.id, third.id]
            assert its.retrieve(second.id, conversation_id=name) == second
            assert second.content[0].text == "Two."
            assert its.delete(second.id, conversation_id=name).id == name
            assert [item.id for item in its.list(name, order="asc")] == [first.id, third.id]
            with pytest.raises(openai.NotFoundError, match=second.id):
                its.retrieve(second.id, conversation_id=name)

    def test_responses_go_on_from_it(self, keeping: Server) -> None:
        with client_of(keeping) as client:
            name = client.conversations.create(items=[user(NAME)]).id
            first = client.responses.create(input=ASK_NAME, conversation=name, **FIELDS)
            assert first.output_text == "Your name is Nora."
            assert first.conversation.id == name
            with client.responses.stream(
                input="Where do I live?", conversation={"id": name}, **FIELDS
            ) as stream:
                final = stream.get_final_response()
            assert "Oslo" in final.output_text
            listed = list(client.conversations.items.list(name, order="asc"))
            assert [item.role for item in listed] == ["user", "user", "assistant", "user", "assistant"]
            assert (listed[2].id, listed[4].id) == (first.output[0].id, final.output[0].id)
            assert client.responses.retrieve(first.id).output == first.output


class TestGoingOn:
    def test_after_a_kill(self, start_server: StartServer, tmp_path: Path) -> None:
        """Record and KV are there, and the last turn computes what is new."""
        server = start_server(memory_options(tmp_path))
        name = make(server)
        respond(server, name, f"{NAME} {filler(60)}")
        flush(server)
        kill_and_start(server)
        second = respond(server, name, ASK_NAME)
        assert text_of(second) == "Your name is Nora."
        usage = second["usage"]
        assert usage["input_tokens"] > 500
        assert usage["input_tokens_details"]["cached_tokens"] > 0.9 * usage["input_tokens"]
        assert [role for role, _ in said(server, name)] == ["user", "assistant"] * 2

    def test_the_prompt_is_that_of_all_items(self, keeping: Server) -> None:
        """Of calls, their results, reasoning and instructions: as if a client sent all at once."""
        call = {"call_id": "call_1", "name": "weather", "arguments": '{"city": "Oslo"}'}
        asked: list[dict[str, Any]] = [
            user("How is the weather?"),
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Oslo."}]},
            {"type": "function_call", **call},
            {"type": "function_call_output", "call_id": "call_1", "output": "It is raining."},
        ]
        name = make(keeping, *asked[:2])
        keeping.post(f"{ROOT}/{name}/items", {"items": asked[2:]})
        first = respond(keeping, name, [], instructions="Be brief.")
        second = respond(keeping, name, "Thank you.", instructions="Be kind.")
        whole = {
            **FIELDS,
            "input": [*asked, *first["output"], user("Thank you.")],
            "instructions": "Be kind.",
        }
        plain = keeping.post(RESPONSES, whole).json()
        assert second["usage"]["input_tokens"] == plain["usage"]["input_tokens"]
        assert text_of(second) == text_of(plain)
        assert [item["type"] for item in items(keeping, name)][:4] == [
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
        ]

    def test_one_at_a_time(self, keeping: Server) -> None:
        name = make(keeping)
        texts = [f"My name is {one}." for one in ("Nora", "Ivan", "Ruth", "Hugo")]
        with ThreadPoolExecutor(len(texts)) as clients:
            answers = list(clients.map(lambda text: respond(keeping, name, text), texts))
        record = said(keeping, name)
        assert [role for role, _ in record] == ["user", "assistant"] * len(texts)
        exchanges = dict(
            zip([text for _, text in record[::2]], [text for _, text in record[1::2]], strict=True)
        )
        assert exchanges == {text: text_of(answer) for text, answer in zip(texts, answers, strict=True)}

    def test_what_a_client_did_not_wait_for_is_not_there(self, keeping: Server) -> None:
        name = make(keeping)
        body = {
            **FIELDS,
            "input": "Tell me.",
            "conversation": name,
            "max_output_tokens": -1,
            "ignore_eos": True,
        }
        with keeping.client.stream("POST", RESPONSES, json={**body, "stream": True}) as running:
            assert next(running.iter_lines())
        keeping.wait_until(lambda: pool(keeping)["in_use"] == 0)
        assert items(keeping, name) == []

    def test_not_stored_it_is_in_the_conversation_all_the_same(self, keeping: Server) -> None:
        name = make(keeping, user(NAME))
        given = respond(keeping, name, ASK_NAME, store=False)
        assert given["store"] is False
        refused(keeping.get(f"{RESPONSES}/{given['id']}"), 404)
        assert said(keeping, name)[1:] == [("user", ASK_NAME), ("assistant", "Your name is Nora.")]

    def test_items_by_their_names(self, keeping: Server) -> None:
        name = make(keeping, user(NAME))
        [first] = items(keeping, name)
        again = respond(keeping, name, [{"type": "item_reference", "id": first["id"]}, user(ASK_NAME)])
        assert text_of(again) == "Your name is Nora."
        [_, second, *_] = items(keeping, name)
        assert (second["content"], second["id"] != first["id"]) == (first["content"], True)
        unchained = {**FIELDS, "input": NAME}
        earlier = keeping.post(RESPONSES, unchained).json()
        reference = {"id": earlier["output"][0]["id"]}
        chained = {**FIELDS, "previous_response_id": earlier["id"], "input": [reference, user(ASK_NAME)]}
        assert text_of(keeping.post(RESPONSES, chained).json()) == "Your name is Nora."
        for fields in ({"conversation": name}, {"previous_response_id": earlier["id"]}):
            body = {**FIELDS, **fields, "input": [{"type": "item_reference", "id": "msg_none"}]}
            assert "msg_none" in keeping.post(RESPONSES, body).json()["error"]["message"]
        body = {**FIELDS, "input": [{"type": "item_reference", "id": "msg_none"}]}
        assert "'input'" in keeping.post(RESPONSES, body).json()["error"]["message"]


class TestOneStore:
    def test_a_session_is_a_conversation(self, keeping: Server) -> None:
        session = "by-chat"
        first = chat(keeping, session, NAME)["choices"][0]["message"]
        assert said(keeping, session) == [("user", NAME), ("assistant", first["content"])]
        second = respond(keeping, session, ASK_NAME)
        assert text_of(second) == "Your name is Nora."
        whole = [user(NAME), first, user(ASK_NAME)]
        counted = keeping.post(f"{CHAT}/input_tokens", {"messages": whole}).json()
        assert second["usage"]["input_tokens"] == counted["input_tokens"]
        third = chat(keeping, session, "Where do I live?")
        assert "Oslo" in third["choices"][0]["message"]["content"]
        history = data_of(operate(keeping, "load", {"context_id": session}))["session"][
            "conversation_history"
        ]
        assert [message["role"] for message in history] == ["user", "assistant"] * 3
        assert history[2] == user(ASK_NAME)

    def test_a_conversation_is_a_session(self, keeping: Server) -> None:
        name = make(keeping, user(NAME))
        answer = chat(keeping, name, ASK_NAME)
        assert answer["choices"][0]["message"]["content"] == "Your name is Nora."
        assert said(keeping, name)[1:] == [("user", ASK_NAME), ("assistant", "Your name is Nora.")]
        listed = data_of(operate(keeping, "list", {"limit": 1000}))["contexts"]
        assert name in [one["context_id"] for one in listed]

    def test_items_of_a_chat_may_be_deleted(self, keeping: Server) -> None:
        session = "one-less"
        chat(keeping, session, NAME)
        [first, second] = items(keeping, session)
        removed = keeping.client.delete(f"{ROOT}/{session}/items/{first['id']}")
        assert (removed.status_code, removed.json()["id"]) == (200, session)
        assert items(keeping, session) == [second]

    def test_what_clients_send_whole_leaves_it_alone(self, keeping: Server) -> None:
        name = make(keeping, user(NAME))
        headers = {"X-Conversation-Id": name}
        body = {"messages": [user("Hello")], **GREEDY}
        assert keeping.client.post(CHAT, json=body, headers=headers).status_code == 200
        assert chat(keeping, "after", "Hello")["choices"]
        assert said(keeping, name) == [("user", NAME)]

    def test_deleted_with_its_kv(self, keeping: Server) -> None:
        name = make(keeping)
        respond(keeping, name, f"{NAME} {filler(60)}")
        flush(keeping)
        entry = data_of(operate(keeping, "load", {"context_id": name}))["session"]
        assert entry["bytes"] > 0
        freed = keeping.client.delete(f"{ROOT}/{name}")
        assert freed.json() == {"id": name, "object": "conversation.deleted", "deleted": True}
        assert operate(keeping, "load", {"context_id": name}).status_code == 404
        for answer in (
            keeping.get(f"{ROOT}/{name}/items"),
            keeping.post(RESPONSES, {**FIELDS, "input": "Hi", "conversation": name}),
            keeping.client.delete(f"{ROOT}/{name}"),
        ):
            assert name in refused(answer, 404)


class TestRefusals:
    def test_of_conversations(self, keeping: Server) -> None:
        one = {"type": "message", **user("Hi")}
        for body, param in (
            ({"items": [one] * 21}, "items"),
            ({"items": "Hi"}, "items"),
            ({"metadata": {"a": 1}}, "metadata"),
            ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
            ({"name": "x"}, "name"),
            ({"items": [one, {"type": "web_search_call", "id": "ws_1"}]}, "items[1].type"),
            ({"items": [{"role": "narrator", "content": "Hi"}]}, "items[0].role"),
            ({"items": [{"role": "user", "content": [{"type": "input_file"}]}]}, "items[0].content[0].type"),
            ({"items": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "items[0].arguments"),
            ({"items": [{**one, "id": "msg_1"}, {**one, "id": "msg_1"}]}, "items[1].id"),
        ):
            refused(keeping.post(ROOT, body), 400, param)
        name = make(keeping)
        its = f"{ROOT}/{name}/items"
        refused(keeping.post(its, {"items": []}), 400, "items")
        refused(keeping.get(f"{its}?limit=101"), 400, "limit")
        refused(keeping.get(f"{its}?order=up"), 400, "order")
        refused(keeping.get(f"{its}?after=msg_none"), 400, "after")
        assert "msg_none" in refused(keeping.client.delete(f"{its}/msg_none"), 404)
        assert "conv_none" in refused(keeping.get(f"{ROOT}/conv_none"), 404)
        assert items(keeping, name) == []

    def test_of_responses(self, keeping: Server) -> None:
        name = make(keeping, user(NAME))
        given = respond(keeping, name, ASK_NAME)
        body = {**FIELDS, "input": "Hi"}
        both = {"conversation": name, "previous_response_id": given["id"]}
        for fields, param, word in (
            (both, "conversation", "previous_response_id"),
            ({"conversation": name, "atlas": {"session_id": "x"}}, None, name),
            ({"conversation": 7}, "conversation", "id"),
            ({"conversation": {"name": name}}, "conversation", "id"),
            ({"conversation": "a b"}, "conversation", "id"),
            ({"conversation": name, "input": []}, "input", "nothing to answer"),
            ({"previous_response_id": given["id"]}, None, f"conversation '{name}'"),
        ):
            assert word in refused(keeping.post(RESPONSES, {**body, **fields}), 400, param)
        answer = keeping.post(RESPONSES, {**body, "conversation": "conv_none"})
        assert "conv_none" in refused(answer, 404)
        with client_of(keeping) as client, pytest.raises(openai.NotFoundError, match="conv_none"):
            client.responses.create(input="Hi", conversation="conv_none", **FIELDS)

    def test_the_same_session_may_be_named_and_a_header_names_the_stream(self, keeping: Server) -> None:
        name = make(keeping, user(NAME))
        body = {**FIELDS, "input": ASK_NAME, "conversation": name, "stream": True}
        body["atlas"] = {"session_id": name, "history": "server"}
        answer = keeping.client.post(RESPONSES, json=body, headers={"X-Conversation-Id": "stream-1"})
        last = stream_events(answer.text)[-1]["response"]
        assert last["atlas"]["session_id"] == name
        assert keeping.get("/v1/stream?conv_id=stream-1").status_code == 200
        assert len(items(keeping, name)) == 3

    def test_without_a_memory_path(self, start_server: StartServer) -> None:
        server = start_server()
        assert "--atlas-memory-path" in refused(server.post(ROOT, {}), 503)
        answer = server.post(RESPONSES, {**FIELDS, "input": "Hi", "conversation": "conv_1"})
        assert "--atlas-memory-path" in refused(answer, 503)

    def test_of_a_tenant(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(key_options(tmp_path))
        ada, ben = with_key(server, ADA), with_key(server, BEN)
        name = make(ada, user(NAME))
        [first] = items(ada, name)
        for other in (ben, with_key(server, ADMIN)):
            for answer in (
                other.get(f"{ROOT}/{name}"),
                other.post(f"{ROOT}/{name}", {"metadata": {}}),
                other.get(f"{ROOT}/{name}/items"),
                other.post(f"{ROOT}/{name}/items", {"items": [user("Hi")]}),
                other.get(f"{ROOT}/{name}/items/{first['id']}"),
                other.client.delete(f"{ROOT}/{name}/items/{first['id']}"),
                other.client.delete(f"{ROOT}/{name}"),
                other.post(RESPONSES, {**FIELDS, "input": "Hi", "conversation": name}),
            ):
                assert name in refused(answer, 404)
        assert text_of(respond(ada, name, ASK_NAME)) == "Your name is Nora."

    def test_encrypted(self, start_server: StartServer, tmp_path: Path) -> None:
        key = tmp_path / "key"
        key.write_bytes(bytes(range(32)))
        key.chmod(0o600)
        server = start_server([*memory_options(tmp_path), "--atlas-encryption-key-file", key])
        made = server.post(ROOT, {"items": [user(NAME)], "metadata": {"secret": "Tovi"}}).json()
        server.kill()
        files = [path for path in tmp_path.rglob("contexts.sqlite3*") if path.is_file()]
        assert files
        assert not [path for path in files if b"Nora" in path.read_bytes() or b"Tovi" in path.read_bytes()]
        server.start()
        assert server.get(f"{ROOT}/{made['id']}").json() == made
        assert said(server, made["id"]) == [("user", NAME)]
