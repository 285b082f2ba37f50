"""--atlas-strict-schemas: all that OpenAI's and Anthropic's schemas require, of answers and of requests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conversations import ONE_THREAD
from tests.server.harness import Server, stream_events
from tests.server.test_openai_sdk import CALL, NAMED, OPENING_BRACE, PARAMETERS, TEMPLATE, TOOL

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
SAID: Any = [{"role": "user", "content": "My name is Ada. What is my name?"}]
GREEDY = {"model": "any", "temperature": 0, "max_tokens": 8}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {**GREEDY, "messages": SAID, "seed": 1},
    MESSAGES: {**GREEDY, "messages": SAID},
    RESPONSES: {"model": "any", "input": "Hi", "max_output_tokens": 2},
}
CLAUDE_TOOL = {"name": "weather", "input_schema": PARAMETERS}
CLAUDE_CALL = {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}, "max_tokens": 64}

# What the schemas require, by the kind of the object. A name with a dot is that of a part.
CHAT_MESSAGE = {"role", "content", "refusal", "annotations"}
CHAT_CHOICE = {"finish_reason", "index", "message", "logprobs"}
CHAT_USAGE = {
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
}
CHUNK_CHOICE = {"delta", "finish_reason", "index", "logprobs"}
MESSAGE = {
    "id",
    "type",
    "role",
    "content",
    "model",
    "stop_reason",
    "stop_sequence",
    "stop_details",
    "usage",
    "container",
}
MESSAGE_USAGE = {
    "cache_creation",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "inference_geo",
    "input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
    "service_tier",
}
BLOCKS = {
    "text": {"type", "text", "citations"},
    "thinking": {"type", "thinking", "signature"},
    "tool_use": {"type", "id", "name", "input", "caller"},
}
DELTA = {"container", "stop_details", "stop_reason", "stop_sequence"}
DELTA_USAGE = {
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
}


def serve(directory: Path, *more: str) -> Server:
    template = directory / "template.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    options: list[str | Path] = [
        *ONE_THREAD,
        "--atlas-strict-schemas",
        "--chat-template-file",
        template,
        *more,
    ]
    return Server(options, directory=directory)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("strict")) as running:
        yield running


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose model begins a call, as requests on /v1/messages cannot have it do."""
    with serve(tmp_path_factory.mktemp("calling"), "--logit-bias", f"{OPENING_BRACE}+100") as running:
        yield running


def ask(server: Server, route: str, **fields: Any) -> Any:
    """The answer, or what the events of a stream hold."""
    answer = server.post(route, {**BODIES[route], **fields})
    assert answer.status_code == 200, answer.text
    return stream_events(answer.text) if fields.get("stream") else answer.json()


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


class TestChat:
    @pytest.mark.parametrize(
        "fields", [{}, {"n": 2}, {**CALL, "tool_choice": "required"}], ids=["text", "choices", "call"]
    )
    def test_whole(self, strict: Server, fields: dict[str, Any]) -> None:
        answer = ask(strict, CHAT, **fields)
        assert answer["service_tier"] == "default"
        assert answer["usage"].keys() >= CHAT_USAGE
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
        for choice in answer["choices"]:
            assert choice.keys() >= CHAT_CHOICE
            assert choice["message"].keys() >= CHAT_MESSAGE
            assert (choice["logprobs"], choice["message"]["refusal"]) == (None, None)

    def test_probabilities(self, strict: Server) -> None:
        [choice] = ask(strict, CHAT, logprobs=True, top_logprobs=1)["choices"]
        assert choice["logprobs"]["content"]
        assert choice["logprobs"]["refusal"] is None

    @pytest.mark.parametrize("wants_usage", [False, True])
    def test_streamed(self, strict: Server, wants_usage: bool) -> None:
        fields = {"stream_options": {"include_usage": True}} if wants_usage else {}
        chunks = ask(strict, CHAT, stream=True, **fields)
        assert all(choice.keys() >= CHUNK_CHOICE for chunk in chunks for choice in chunk["choices"])
        if wants_usage:
            *others, last = chunks
            assert {chunk["usage"] for chunk in others} == {None}
            assert last["usage"].keys() >= CHAT_USAGE
        else:
            assert not [chunk for chunk in chunks if "usage" in chunk]


class TestMessages:
    def test_whole(self, strict: Server) -> None:
        check_message(ask(strict, MESSAGES), ["text"])

    def test_call(self, calling: Server) -> None:
        check_message(ask(calling, MESSAGES, **CLAUDE_CALL), ["tool_use"])

    def test_streamed(self, strict: Server) -> None:
        check_stream(ask(strict, MESSAGES, stream=True), ask(strict, MESSAGES))

    def test_streamed_call(self, calling: Server) -> None:
        events = ask(calling, MESSAGES, **CLAUDE_CALL, stream=True)
        check_stream(events, ask(calling, MESSAGES, **CLAUDE_CALL))


def check_message(answer: dict[str, Any], kinds: list[str]) -> None:
    assert answer.keys() >= MESSAGE
    assert answer["usage"].keys() >= MESSAGE_USAGE
    assert [block["type"] for block in answer["content"]] == kinds
    assert all(block.keys() == BLOCKS[block["type"]] for block in answer["content"])


def check_stream(events: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    by_type = {event["type"]: event for event in events}
    assert by_type["message_start"]["message"].keys() >= MESSAGE
    assert by_type["message_start"]["message"]["usage"].keys() >= MESSAGE_USAGE
    begun = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [block.keys() for block in begun] == [BLOCKS[block["type"]] for block in whole["content"]]
    end = by_type["message_delta"]
    assert (end["delta"].keys(), end["usage"].keys()) == (DELTA, DELTA_USAGE)
    usages = (end["usage"], whole["usage"])
    assert len({usage["output_tokens"] for usage in usages}) == 1
    assert len({usage["input_tokens"] + usage["cache_read_input_tokens"] for usage in usages}) == 1


class TestRequests:
    @pytest.mark.parametrize("route", list(BODIES))
    @pytest.mark.parametrize("wrong", [{}, {"model": None}, {"model": 7}], ids=["none", "null", "number"])
    def test_model_is_required(self, strict: Server, route: str, wrong: dict[str, Any]) -> None:
        body = {key: value for key, value in BODIES[route].items() if key != "model"} | wrong
        error = error_of(strict.post(route, body), 400)
        assert "'model'" in error["message"]
        assert route == MESSAGES or error["param"] == "model"

    def test_fields_that_anthropic_requires(self, strict: Server) -> None:
        for field in ("messages", "max_tokens"):
            body = {key: value for key, value in BODIES[MESSAGES].items() if key != field}
            answer = strict.post(MESSAGES, body)
            error = error_of(answer, 400)
            assert f"'{field}'" in error["message"]
            assert (answer.json()["type"], error["type"]) == ("error", "invalid_request_error")
            assert "request_id" in answer.json()

    @pytest.mark.parametrize(
        "field", ["functions", "function_call", "audio", "web_search_options", "modalities", "tool_choice"]
    )
    def test_what_would_be_ignored_is_refused(self, strict: Server, field: str) -> None:
        error = error_of(strict.post(CHAT, {**BODIES[CHAT], field: {"type": "custom"}}), 400)
        assert error["param"] == field

    def test_a_tool_that_is_chosen_is_called(self, strict: Server) -> None:
        other = {"type": "function", "function": {"name": "another", "parameters": {"type": "object"}}}
        fields = {**CALL, "tools": [other, TOOL], "tool_choice": NAMED}
        [choice] = ask(strict, CHAT, **fields)["choices"]
        assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather"]
        allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
        [choice] = ask(strict, CHAT, **fields | {"tool_choice": allowed})["choices"]
        assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"
        missing = {"type": "function", "function": {"name": "none"}}
        error = error_of(strict.post(CHAT, {**BODIES[CHAT], **fields, "tool_choice": missing}), 400)
        assert "'none'" in error["message"]

    def test_a_tool_that_is_chosen_of_messages(self, calling: Server) -> None:
        fields = {**CLAUDE_CALL, "tools": [{"name": "another", "input_schema": {}}, CLAUDE_TOOL]}
        chosen = {"type": "tool", "name": "weather"}
        [block] = ask(calling, MESSAGES, **fields | {"tool_choice": chosen})["content"]
        assert block["name"] == "weather"
        answer = calling.post(
            MESSAGES, {**BODIES[MESSAGES], **fields, "tool_choice": chosen | {"name": "none"}}
        )
        assert "'none'" in error_of(answer, 400)["message"]

    def test_errors_of_llama_server_are_complete(self, strict: Server) -> None:
        error = error_of(strict.post(CHAT, {**BODIES[CHAT], "messages": [{}]}), 400)
        assert error["param"] is None


def test_it_can_be_switched_off_while_it_runs(strict: Server) -> None:
    for is_on in (False, True):
        answer = strict.post("/v1/atlas/config", {"settings": {"strict_schemas": is_on}})
        assert answer.status_code == 200, answer.text
        given = strict.post(CHAT, {**BODIES[CHAT], "model": None})
        assert given.status_code == (400 if is_on else 200)
        assert is_on or "logprobs" not in given.json()["choices"][0]
