"""Responses that are kept: what requests go on from, and what clients may ask of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.server.conftest import StartServer
from tests.server.conversations import ASK_NAME, flush, kill_and_start, memory_options, memory_status
from tests.server.harness import Server, stream_events
from tests.server.keys import ADA, ADMIN, BEN, key_options, with_key

NAME = "My name is Nora. I live in Oslo."
ROUTE = "/v1/responses"
FIELDS: dict[str, Any] = {"model": "any", "temperature": 0, "max_output_tokens": 32}


def client_of(server: Server) -> Any:
    """The official SDK; of its types, which are many, nothing is asked here."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def ask(server: Server, said: str, **fields: Any) -> dict[str, Any]:
    answer = server.post(ROUTE, {**FIELDS, "input": said, **fields})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", []))


def problem_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    message: str = answer.json()["error"]["message"]
    return message


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("responses")
    with Server([*memory_options(directory), "-np", "2"], directory=directory) as running:
        yield running


class TestGoingOn:
    def test_after_a_kill(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(memory_options(tmp_path))
        with client_of(server) as client:
            first = client.responses.create(input=NAME, **FIELDS)
        kill_and_start(server)
        with client_of(server) as client:
            second = client.responses.create(input=ASK_NAME, previous_response_id=first.id, **FIELDS)
            assert second.output_text == "Your name is Nora."
            assert second.previous_response_id == first.id
            assert client.responses.retrieve(first.id).output == first.output

    def test_streamed(self, keeping: Server) -> None:
        with client_of(keeping) as client:
            first = client.responses.create(input=NAME, **FIELDS)
            with client.responses.stream(
                input=ASK_NAME, previous_response_id=first.id, store=True, **FIELDS
            ) as stream:
                *_, last = stream
                final = stream.get_final_response()
            assert last.type == "response.completed"
            assert final.output_text == "Your name is Nora."
            kept = client.responses.retrieve(final.id)
            assert kept.model_dump(exclude={"output"}) == final.model_dump(exclude={"output"})

    def test_instructions_are_not_carried_over(self, keeping: Server) -> None:
        first = ask(keeping, NAME, instructions="Always answer at length, and then say it once more.")
        second = ask(keeping, ASK_NAME, previous_response_id=first["id"])
        plain = ask(keeping, NAME)
        bare = ask(keeping, ASK_NAME, previous_response_id=plain["id"])
        assert second["instructions"] is None
        longer = first["usage"]["output_tokens"] - plain["usage"]["output_tokens"]
        assert second["usage"]["input_tokens"] - bare["usage"]["input_tokens"] == longer

    def test_two_that_go_on_from_one_are_branches(self, keeping: Server) -> None:
        first = ask(keeping, NAME)
        ask(keeping, "My name is Boris.", previous_response_id=first["id"])
        assert text_of(ask(keeping, ASK_NAME, previous_response_id=first["id"])) == "Your name is Nora."

    def test_items_of_all_kinds_come_back(self, keeping: Server) -> None:
        """The prompt is that of all items sent at once."""
        call = {"call_id": "call_1", "name": "weather", "arguments": '{"city": "Oslo"}'}
        asked = [
            {"role": "user", "content": "How is the weather?"},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Oslo."}]},
            {"type": "function_call", **call},
            {"type": "function_call_output", "call_id": "call_1", "output": "It is raining."},
        ]
        first = ask(keeping, "", input=asked)
        second = ask(keeping, "Thank you.", previous_response_id=first["id"])
        thanks = {"role": "user", "content": "Thank you."}
        whole = ask(keeping, "", input=[*asked, *first["output"], thanks])
        assert second["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
        assert text_of(second) == text_of(whole)

    def test_what_is_missing_is_named(self, keeping: Server) -> None:
        answer = keeping.post(ROUTE, {**FIELDS, "input": "Hi", "previous_response_id": "resp_none"})
        assert "'previous_response_id'" in (problem := problem_of(answer, 400))
        assert "resp_none" in problem

    def test_a_link_that_was_deleted_is_named(self, keeping: Server) -> None:
        first = ask(keeping, NAME)
        second = ask(keeping, "Thank you.", previous_response_id=first["id"])
        assert keeping.client.delete(f"{ROUTE}/{first['id']}").status_code == 200
        answer = keeping.post(ROUTE, {**FIELDS, "input": "Hi", "previous_response_id": second["id"]})
        assert first["id"] in problem_of(answer, 400)
        assert keeping.get(f"{ROUTE}/{second['id']}").status_code == 200


class TestAskedFor:
    def test_as_it_was_answered(self, keeping: Server) -> None:
        given = ask(keeping, NAME, metadata={"topic": "names"}, atlas={})
        given.pop("atlas")
        assert keeping.get(f"{ROUTE}/{given['id']}").json() == given
        assert given["metadata"] == {"topic": "names"}
        assert given["store"] is True

    def test_its_input(self, keeping: Server) -> None:
        first = ask(keeping, NAME)
        second = ask(keeping, ASK_NAME, previous_response_id=first["id"])
        with client_of(keeping) as client:
            items = list(client.responses.input_items.list(second["id"], order="asc", limit=2))
        assert [item.role for item in items] == ["user", "assistant", "user"]
        assert items[0].content[0].text == NAME
        assert items[1].id == first["output"][0]["id"]
        assert len({item.id for item in items}) == 3

    def test_pages_are_checked(self, keeping: Server) -> None:
        path = f"{ROUTE}/{ask(keeping, NAME)['id']}/input_items"
        assert "'limit'" in problem_of(keeping.get(f"{path}?limit=0"), 400)
        assert "'order'" in problem_of(keeping.get(f"{path}?order=up"), 400)
        assert "'after'" in problem_of(keeping.get(f"{path}?after=msg_1"), 400)

    def test_deleted(self, keeping: Server) -> None:
        name = ask(keeping, NAME)["id"]
        with client_of(keeping) as client:
            client.responses.delete(name)
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(name)
        assert name in problem_of(keeping.client.delete(f"{ROUTE}/{name}"), 404)

    def test_its_kv_goes_with_the_last_of_a_conversation(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        server = start_server(memory_options(tmp_path))
        first = ask(server, NAME)
        second = ask(server, ASK_NAME, previous_response_id=first["id"])
        other = ask(server, f"{NAME} And you?")
        flush(server)
        session = {"context_id": first["id"]}
        assert server.post("/v1/atlas/memory/load", session).json()["data"]["session"]["tokens"] > 0
        held = memory_status(server)["disk"]["bytes"]
        assert server.client.delete(f"{ROUTE}/{first['id']}").status_code == 200
        assert memory_status(server)["disk"]["bytes"] == held
        assert server.client.delete(f"{ROUTE}/{second['id']}").status_code == 200
        problem_of(server.post("/v1/atlas/memory/load", session), 404)
        server.wait_until(lambda: memory_status(server)["disk"]["bytes"] < held)
        assert server.get(f"{ROUTE}/{other['id']}").status_code == 200

    def test_not_kept_where_it_is_not_wanted(self, keeping: Server) -> None:
        given = ask(keeping, NAME, store=False)
        assert given["store"] is False
        problem_of(keeping.get(f"{ROUTE}/{given['id']}"), 404)

    def test_what_is_not_done_is_refused(self, keeping: Server) -> None:
        for field, value in {
            "include": ["message.output_text.logprobs"],
            "truncation": "most",
            "prompt": {"id": "pmpt_1"},
            "metadata": {"a": 1},
        }.items():
            answer = keeping.post(ROUTE, {**FIELDS, "input": "Hi", field: value})
            assert f"'{field}'" in problem_of(answer, 400)
        name = ask(keeping, "Hi")["id"]
        assert "'stream'" in problem_of(keeping.get(f"{ROUTE}/{name}?stream=true"), 400)

    def test_without_a_memory_path(self, start_server: StartServer) -> None:
        server = start_server()
        given = ask(server, NAME, store=True)
        assert given["store"] is False
        answer = server.post(ROUTE, {**FIELDS, "input": "Hi", "previous_response_id": given["id"]})
        assert "--atlas-memory-path" in problem_of(answer, 503)

    def test_switched_off_while_it_runs(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server([*memory_options(tmp_path), "--atlas-max-responses", "2"])
        names = [ask(server, f"Number {i}.")["id"] for i in range(3)]
        answer = server.post("/v1/atlas/config", {"settings": {"store_responses": False}})
        assert answer.status_code == 200, answer.text
        assert ask(server, NAME)["store"] is False
        # the change of a setting has old ones deleted
        server.wait_until(lambda: server.get(f"{ROUTE}/{names[0]}").status_code == 404)
        assert server.get(f"{ROUTE}/{names[2]}").status_code == 200

    def test_encrypted(self, start_server: StartServer, tmp_path: Path) -> None:
        key = tmp_path / "key"
        key.write_bytes(bytes(range(32)))
        key.chmod(0o600)
        server = start_server([*memory_options(tmp_path), "--atlas-encryption-key-file", key])
        given = ask(server, NAME)
        server.kill()
        files = [path for path in tmp_path.rglob("contexts.sqlite3*") if path.is_file()]
        assert files
        assert not [path for path in files if b"Nora" in path.read_bytes()]
        server.start()
        assert server.get(f"{ROUTE}/{given['id']}").json() == given

    def test_of_a_tenant(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(key_options(tmp_path))
        ada, ben = with_key(server, ADA), with_key(server, BEN)
        name = ask(ada, NAME)["id"]
        assert ada.get(f"{ROUTE}/{name}").status_code == 200
        for other in (ben, with_key(server, ADMIN)):
            assert problem_of(other.get(f"{ROUTE}/{name}"), 404)
            assert other.client.delete(f"{ROUTE}/{name}").status_code == 404
            answer = other.post(ROUTE, {**FIELDS, "input": "Hi", "previous_response_id": name})
            assert name in problem_of(answer, 400)


class TestEvents:
    def test_they_are_numbered_and_placed(self, keeping: Server) -> None:
        answer = keeping.post(ROUTE, {**FIELDS, "input": NAME, "stream": True})
        events = stream_events(answer.text)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert [event["type"] for event in events if "delta" not in event] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert all(event["output_index"] == 0 for event in events[2:-1])
        assert {event["response"]["id"] for event in events if "response" in event} == {
            events[-1]["response"]["id"]
        }

    def test_an_answer_that_is_cut_off_is_incomplete(self, keeping: Server) -> None:
        fields = {**FIELDS, "input": NAME, "max_output_tokens": 2}
        whole = keeping.post(ROUTE, fields).json()
        assert whole["status"] == "incomplete"
        assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
        last = stream_events(keeping.post(ROUTE, {**fields, "stream": True}).text)[-1]
        assert last["type"] == "response.incomplete"
        assert last["response"]["status"] == "incomplete"


def test_a_format_of_the_text_is_heeded(keeping: Server) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [7]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    text = {"format": {"type": "json_schema", "name": "seven", "schema": schema}}
    given = ask(keeping, NAME, text=text)
    assert text_of(given).replace(" ", "") == '{"n":7}'
    assert given["text"] == text


def test_an_image_for_a_model_without_eyes_is_the_clients_fault(keeping: Server) -> None:
    pixel = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    content = [{"type": "input_text", "text": "What is it?"}, pixel]
    answer = keeping.post(ROUTE, {**FIELDS, "input": [{"role": "user", "content": content}]})
    assert "image input is not supported" in problem_of(answer, 400)
