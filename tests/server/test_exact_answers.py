"""Answers of conversations that the server keeps come back token by token."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.server.agents import RESPONSES, TEMPLATE
from tests.server.conftest import StartServer
from tests.server.conversations import filler, flush, kill_and_start, memory_options, reused_tokens
from tests.server.gguf_files import write_projector
from tests.server.harness import Server, stream_events, write_plugin
from tests.server.test_agents_calls import first_turn
from tests.server.test_memory_of_media import image

ROUTE = "/v1/responses"
ASKED = f"Tell me of the letters. {filler(10)}"
NEXT = "And of which is there more?"
N_TOKENS = 24
# The model writes letter by letter what its tokenizer has longer tokens for.
LETTERS = [["e", 60], ["r", 59.5], ["\n", -100]]

Json = dict[str, Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exact")


@pytest.fixture(scope="module")
def keeping(place: Path) -> Iterator[Server]:
    with Server([*memory_options(place), "-np", "2"], directory=place) as running:
        yield running


def respond(server: Server, said: str, **fields: Any) -> Json:
    body = {"model": "any", "input": said, "temperature": 0, "max_output_tokens": 4, **fields}
    answer = server.post(ROUTE, body)
    assert answer.status_code == 200, answer.text
    response: Json = answer.json()
    return response


def in_letters(server: Server, said: str, **fields: Any) -> Json:
    """A response whose tokens are not those of its text."""
    options = {"logit_bias": LETTERS, "repeat_penalty": 1.3, "max_output_tokens": N_TOKENS}
    response = respond(server, said, **options, **fields)
    [message] = response["output"]
    text = message["content"][0]["text"]
    assert response["usage"]["output_tokens"] == N_TOKENS
    tokens = server.post("/tokenize", {"content": text}).json()["tokens"]
    assert len(tokens) < N_TOKENS - 2, text
    return response


def all_tokens(response: Json) -> int:
    return int(response["usage"]["input_tokens"] + response["usage"]["output_tokens"])


def test_the_next_turn_goes_on_from_what_the_model_wrote(keeping: Server) -> None:
    first = in_letters(keeping, ASKED)
    second = in_letters(keeping, NEXT, previous_response_id=first["id"])
    # of its last token there is no state
    assert max(reused_tokens(second)) == all_tokens(first) - 1
    third = respond(keeping, NEXT, previous_response_id=second["id"])
    assert max(reused_tokens(third)) == all_tokens(second) - 1


def test_after_a_kill(keeping: Server) -> None:
    first = in_letters(keeping, f"After a kill: {ASKED}")
    second = in_letters(keeping, NEXT, previous_response_id=first["id"])
    flush(keeping)
    kill_and_start(keeping)
    for earlier in (second, first):
        later = respond(keeping, NEXT, previous_response_id=earlier["id"])
        assert max(reused_tokens(later)) >= 0.99 * all_tokens(earlier)


def test_streamed(keeping: Server) -> None:
    body = {"input": f"Streamed: {ASKED}", "temperature": 0, "max_output_tokens": N_TOKENS, "stream": True}
    answer = keeping.post(ROUTE, body | {"logit_bias": LETTERS, "repeat_penalty": 1.3})
    first = stream_events(answer.text)[-1]["response"]
    later = respond(keeping, NEXT, previous_response_id=first["id"])
    assert max(reused_tokens(later)) == all_tokens(first) - 1


def test_whoever_sends_all_has_its_text_tokenised(keeping: Server) -> None:
    """As stock does: nothing but the text says what was said."""
    asked = f"All: {ASKED}"
    first = in_letters(keeping, asked)
    said = [{"role": "user", "content": asked}, *first["output"], {"role": "user", "content": NEXT}]
    kept = respond(keeping, NEXT, previous_response_id=first["id"])
    sent = respond(keeping, "", input=said)
    assert sent["usage"]["input_tokens"] < kept["usage"]["input_tokens"]


def test_beside_images(start_server: StartServer, tmp_path: Path) -> None:
    """What is with an image is tokenised by its text, as stock does; what is not goes on exactly."""
    server = start_server([*memory_options(tmp_path), "--mmproj", write_projector(tmp_path / "mmproj.gguf")])
    first = in_letters(server, ASKED)
    seen = {"type": "input_image", "image_url": image(1)["image_url"]["url"]}
    content = [{"type": "input_text", "text": f"Look. {filler(5)}"}, seen]
    second = respond(
        server, "", input=[{"role": "user", "content": content}], previous_response_id=first["id"]
    )
    assert max(reused_tokens(second)) < first["usage"]["input_tokens"] + N_TOKENS
    third = respond(server, NEXT, previous_response_id=second["id"])
    assert max(reused_tokens(third)) >= second["usage"]["input_tokens"]
    other = respond(server, NEXT, previous_response_id=first["id"])
    assert max(reused_tokens(other)) == all_tokens(first) - 1


def test_how_the_model_wrote_its_calls_is_kept(start_server: StartServer, tmp_path: Path) -> None:
    template = tmp_path / "calls.jinja"
    template.write_text(TEMPLATE.strip(), encoding="utf-8")
    server = start_server(
        [*memory_options(tmp_path), "--jinja", "--chat-template-file", template, "-c", "8192"]
    )
    made = server.post(ROUTE, {**first_turn(RESPONSES, "How much is it?"), "store": True})
    assert made.status_code == 200, made.text
    [call] = [item for item in made.json()["output"] if item["type"] == "function_call"]
    [exact] = kept_exactly(tmp_path)
    assert exact["arguments"] == [call["arguments"]]
    pieces = server.post("/detokenize", {"tokens": exact["tokens"]}).json()["content"]
    assert "1e1" in pieces.replace(" ", "")


LOUD = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{{ m.content | upper }}{% else %}"
    "{{ m.content }}{% endif %}<|end|>{% endfor %}<|assistant|>"
)


def test_a_text_that_the_template_changes_is_its_text(start_server: StartServer, tmp_path: Path) -> None:
    template = tmp_path / "loud.jinja"
    template.write_text(LOUD, encoding="utf-8")
    server = start_server([*memory_options(tmp_path), "--jinja", "--chat-template-file", template])
    first = in_letters(server, ASKED)
    later = respond(server, NEXT, previous_response_id=first["id"])
    assert later["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    assert max(reused_tokens(later)) <= first["usage"]["input_tokens"]


# Takes a word out of each answer.
REDACTS = """
from atlas_plugin import Modify, hookimpl

@hookimpl(deadline_ms=60000)
def on_response(answer):
    for item in answer["output"]:
        for part in item["content"]:
            part["text"] = "[REDACTED]"
    return Modify(answer)
"""


def kept_exactly(directory: Path) -> list[Any]:
    """Of each response in the database, how the model wrote its answer."""
    with closing(sqlite3.connect(directory / "memory" / "contexts.sqlite3")) as database:
        return [json.loads(record)["exact"] for (record,) in database.execute("SELECT record FROM responses")]


def test_what_a_plugin_took_out_is_not_kept_by_its_tokens(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), "--atlas-plugin", write_plugin(tmp_path, REDACTS)])
    first = respond(server, ASKED)
    assert first["output"][0]["content"][0]["text"] == "[REDACTED]"
    assert kept_exactly(tmp_path) == [None]
    later = respond(server, NEXT, previous_response_id=first["id"])
    assert max(reused_tokens(later)) <= first["usage"]["input_tokens"]


class TestConversations:
    def test_of_items(self, keeping: Server) -> None:
        conversation = keeping.post("/v1/conversations", {}).json()["id"]
        first = in_letters(keeping, f"Of items: {ASKED}", conversation=conversation, store=False)
        flush(keeping)
        kill_and_start(keeping)
        second = in_letters(keeping, NEXT, conversation=conversation)
        assert max(reused_tokens(second)) >= 0.99 * all_tokens(first)
        third = respond(keeping, NEXT, conversation=conversation)
        assert max(reused_tokens(third)) == all_tokens(second) - 1

    def test_of_messages(self, keeping: Server, place: Path) -> None:
        """Of a chat whose history the server keeps; an item that is deleted leaves no tokens behind."""

        def chat(said: str, **fields: Any) -> Json:
            atlas = {"session_id": "letters", "history": "server"}
            body = {"messages": [{"role": "user", "content": said}], "max_tokens": N_TOKENS, "atlas": atlas}
            answer = keeping.post("/v1/chat/completions", {**body, "temperature": 0, **fields})
            assert answer.status_code == 200, answer.text
            answered: Json = answer.json()
            return answered

        first = chat(f"In a chat: {ASKED}", logit_bias=LETTERS, repeat_penalty=1.3)
        second = chat(NEXT, max_tokens=4)
        assert max(reused_tokens(second)) == first["usage"]["total_tokens"] - 1
        items = keeping.get("/v1/conversations/letters/items?order=asc").json()["data"]
        assert keeping.client.delete(f"/v1/conversations/letters/items/{items[0]['id']}").status_code == 200
        with closing(sqlite3.connect(place / "memory" / "contexts.sqlite3")) as database:
            query = "SELECT count(*) FROM exact_answers WHERE session_id = 'letters'"
            assert database.execute(query).fetchone() == (0,)
