"""The official OpenAI SDK, unchanged: answers are those of an untouched llama-server."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI, Stream

from tests.server.comparison import VARYING, as_stock_has_it, normalised
from tests.server.completions import BODIES, ROUTES
from tests.server.conversations import ONE_THREAD
from tests.server.harness import STOCK_BINARY, Server

ATLAS = {"session_id": "ada", "memory_layers": 2, "cache_strategy": "lfu", "batch_size": 8}

# The demo model's own format, and tools. A call is bare JSON: a model that never saw one begins it when its
# first token is forced, and the grammar of upstream leads it to the end.
TEMPLATE = """
{%- for tool in tools or [] %}{{- '<|user|>' + (tool | tojson) }}{%- endfor %}
{%- for message in messages %}
{{- '<|' + message.role + '|>' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}' }}
{%- endfor %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}
"""
OPENING_BRACE = 96  # in the demo model's vocabulary

TEXT = "My name is Ada. What is my name?"
USER = {"role": "user", "content": TEXT}
SYSTEM = {"role": "system", "content": "Be brief."}
PARAMETERS = {
    "type": "object",
    "properties": {"unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
    "required": ["unit"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
NAMED = {"type": "function", "function": {"name": "weather"}}
ASSISTANT_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"unit": "kelvin"}'}}
    ],
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "weather", "schema": PARAMETERS}}

GREEDY: dict[str, Any] = {"model": "any", "seed": 1, "temperature": 0}
CHAT: dict[str, Any] = {**GREEDY, "messages": [USER], "max_tokens": 8}
CALL: dict[str, Any] = {**CHAT, "tools": [TOOL], "max_tokens": 64, "logit_bias": {str(OPENING_BRACE): 100}}
TEXT_COMPLETION: dict[str, Any] = {**GREEDY, "prompt": TEXT, "max_tokens": 8}
RESPONSES: dict[str, Any] = {"model": "any", "input": TEXT, "max_output_tokens": 8, "temperature": 0}
USAGE = {"stream_options": {"include_usage": True}}

CHAT_API, TEXT_API, RESPONSES_API = "chat.completions", "completions", "responses"


@dataclass(frozen=True)
class Case:
    """A call of the SDK: `create` of an API with its parameters."""

    name: str
    api: str
    fields: dict[str, Any]

    def documents(self, client: OpenAI, atlas: Any = None) -> list[dict[str, Any]]:
        """What the SDK made of the answer: one document, a stream's, or an error's status and body."""
        extra = {} if atlas is None else {"extra_body": {"atlas": atlas}}
        try:
            answer = attrgetter(self.api)(client).create(**self.fields, **extra)
            parts = answer if isinstance(answer, Stream) else [answer]
            # upstream's streams for several prompts hold a null
            return [part.model_dump(exclude_unset=True) for part in parts if part]
        except openai.APIStatusError as error:
            return [{"http_status": error.status_code, "body": error.body}]


def both(name: str, api: str, fields: dict[str, Any], **more_when_streamed: Any) -> list[Case]:
    """Whole, and streamed."""
    streamed = {**fields, "stream": True, **more_when_streamed}
    return [Case(name, api, fields), Case(f"{name}-streamed", api, streamed)]


COMPLETIONS = [
    *both("chat", CHAT_API, CHAT, **USAGE),
    *both("chat-system", CHAT_API, {**CHAT, "messages": [SYSTEM, USER]}),
    *both("chat-choices", CHAT_API, {**CHAT, "n": 2}, **USAGE),
    *both("chat-stop", CHAT_API, {**CHAT, "stop": ["name", "Ada"]}),
    *both("chat-logprobs", CHAT_API, {**CHAT, "logprobs": True, "top_logprobs": 3}),
    *both("chat-one-token", CHAT_API, {**CHAT, "max_tokens": 1}),
    *both("chat-schema", CHAT_API, {**CHAT, "response_format": SCHEMA, "max_tokens": 32}),
    *both("chat-penalties", CHAT_API, {**CHAT, "frequency_penalty": 1, "presence_penalty": 1}),
    *both("chat-sampled", CHAT_API, {**CHAT, "temperature": 1.5, "top_p": 0.9}),
    *both("tools-required", CHAT_API, {**CALL, "tool_choice": "required"}, **USAGE),
    *both("tools-named", CHAT_API, {**CHAT, "tools": [TOOL], "tool_choice": NAMED}),
    *both("tools-auto", CHAT_API, {**CHAT, "tools": [TOOL], "tool_choice": "auto"}),
    *both("tools-none", CHAT_API, {**CHAT, "tools": [TOOL], "tool_choice": "none"}),
    *both("tools-choices", CHAT_API, {**CALL, "tool_choice": "required", "n": 2}),
    *both("tools-answered", CHAT_API, {**CHAT, "tools": [TOOL], "messages": [USER, ASSISTANT_CALL,
          {"role": "tool", "tool_call_id": "1", "content": "280"}]}),
    *both("text", TEXT_API, TEXT_COMPLETION, **USAGE),
    *both("text-prompts", TEXT_API, {**TEXT_COMPLETION, "prompt": [TEXT, "Another prompt.", "A third."]}),
    *both("text-tokens", TEXT_API, {**TEXT_COMPLETION, "prompt": [[300, 301], [302]]}),
    *both("text-choices", TEXT_API, {**TEXT_COMPLETION, "n": 2}),
    *both("text-stop", TEXT_API, {**TEXT_COMPLETION, "stop": "a"}),
    *both("text-echo", TEXT_API, {**TEXT_COMPLETION, "echo": True, "logprobs": 2}),
    *both("responses", RESPONSES_API, RESPONSES),
    *both("responses-instructions", RESPONSES_API, {**RESPONSES, "instructions": "Be brief."}),
    *both("responses-messages", RESPONSES_API, {**RESPONSES, "input": [SYSTEM, USER]}),
    *both("responses-tools", RESPONSES_API, {**RESPONSES, "tools": [{"type": "function", "name": "weather",
          "parameters": PARAMETERS, "strict": False}], "tool_choice": "auto"}),
]  # fmt: skip
ONE_OF_EACH_API = [case for case in COMPLETIONS if case.fields in (CHAT, TEXT_COMPLETION, RESPONSES)]
ERRORS = [
    *both("temperature", CHAT_API, {**CHAT, "temperature": "hot"}),
    *both("no-messages", CHAT_API, {**CHAT, "messages": "hello"}),
    *both("tool-choice", CHAT_API, {**CHAT, "tools": [TOOL], "tool_choice": "sometimes"}),
    *both("schema", CHAT_API, {**CHAT, "response_format": {"type": "poem"}}),
    *both("too-long", CHAT_API, {**CHAT, "messages": [{"role": "user", "content": "a b c d " * 4000}]}),
    *both("choices", CHAT_API, {**CHAT, "n": 99}),
    *both("prompt", TEXT_API, {**TEXT_COMPLETION, "prompt": {"text": 1}}),
    *both("input", RESPONSES_API, {**RESPONSES, "input": 7}),
    Case("no-embeddings", "embeddings", {"model": "any", "input": TEXT}),
]
EMBEDDINGS = [
    Case("text", "embeddings", {"model": "any", "input": TEXT}),
    Case("texts", "embeddings", {"model": "any", "input": [TEXT, "Another one."]}),
    Case("tokens", "embeddings", {"model": "any", "input": [[300, 301], [302]]}),
    Case("floats", "embeddings", {"model": "any", "input": TEXT, "encoding_format": "float"}),
    Case("wrong", "embeddings", {"model": "any", "input": []}),
]


@dataclass(frozen=True)
class Pair:
    """Two servers that see the same requests in the same order, and their clients."""

    ours: Server
    stock: Server
    client: OpenAI
    stock_client: OpenAI


def masked(text: str) -> str:
    """An answer as it was sent, without identifiers, clocks and what is measured."""
    text = re.sub(r'"timings":\{[^}]*\}', "TIMINGS", text)
    return re.sub(rf'"({"|".join(VARYING)})":("[^"]*"|[0-9.]+)', r"\1", text)


def name_of(case: Case) -> str:
    return case.name


def start_pair(stack: ExitStack, directory: Path, *options: str | Path) -> Pair:
    def start(*own: str, **more: Any) -> tuple[Server, OpenAI]:
        server = stack.enter_context(Server([*ONE_THREAD, *options, *own], directory=directory, **more))
        return server, stack.enter_context(OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0))

    # or a call of the model's would come back in its own words, in other tokens than stock's
    ours, client = start("--no-atlas-normalize-prompts")
    stock, stock_client = start(binary=STOCK_BINARY)
    return Pair(ours, stock, client, stock_client)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("sdk")
    template = directory / "template.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    with ExitStack() as stack:
        yield start_pair(stack, directory, "--chat-template-file", template)


@pytest.fixture(scope="module")
def embedding_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield start_pair(stack, tmp_path_factory.mktemp("embeddings"), "--embeddings", "--pooling", "mean")


class TestAgainstStock:
    @pytest.mark.parametrize("case", COMPLETIONS, ids=name_of)
    def test_answers_are_equal(self, pair: Pair, case: Case) -> None:
        answer, expected = (case.documents(client) for client in (pair.client, pair.stock_client))
        if case.api == RESPONSES_API:
            answer = as_stock_has_it(answer, expected)
        assert normalised(answer) == normalised(expected)
        assert "http_status" not in answer[0]

    @pytest.mark.parametrize("case", ERRORS, ids=name_of)
    def test_errors_are_equal(self, pair: Pair, case: Case) -> None:
        answer, expected = (case.documents(client) for client in (pair.client, pair.stock_client))
        assert answer == expected
        assert answer[0]["http_status"] >= 400

    def test_tools_are_called(self, pair: Pair) -> None:
        answer = pair.client.chat.completions.create(**CALL, tool_choice="required")
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments)["unit"] in ("celsius", "kelvin")

    def test_models_are_equal(self, pair: Pair) -> None:
        ours, stock = (client.models.list().model_dump() for client in (pair.client, pair.stock_client))
        assert normalised(ours) == normalised(stock)

    @pytest.mark.parametrize("case", EMBEDDINGS, ids=name_of)
    def test_embeddings_are_equal(self, embedding_pair: Pair, case: Case) -> None:
        clients = (embedding_pair.client, embedding_pair.stock_client)
        answer, expected = (case.documents(client) for client in clients)
        assert normalised(answer) == normalised(expected)


class TestWithAtlas:
    @pytest.mark.parametrize("case", COMPLETIONS, ids=name_of)
    def test_the_answer_is_the_same_but_for_the_object(self, pair: Pair, case: Case) -> None:
        case.documents(pair.client)
        expected = case.documents(pair.client)
        answer = case.documents(pair.client, ATLAS)
        last = answer[-1].get("response", answer[-1])
        atlas = last.pop("atlas")
        assert normalised(answer) == normalised(expected)
        assert (atlas["session_id"], atlas["memory_layers"]) == (ATLAS["session_id"], ATLAS["memory_layers"])
        assert 0 < atlas["reused_tokens"] <= atlas["prompt_tokens"]

    @pytest.mark.parametrize("case", ERRORS[:4], ids=name_of)
    def test_errors_are_stock(self, pair: Pair, case: Case) -> None:
        assert case.documents(pair.client, ATLAS) == case.documents(pair.stock_client)

    def test_model_extra(self, pair: Pair) -> None:
        answer = pair.client.chat.completions.create(**CHAT, extra_body={"atlas": ATLAS})
        assert answer.model_extra["atlas"]["prompt_tokens"] == answer.usage.prompt_tokens

    @pytest.mark.parametrize("case", ONE_OF_EACH_API, ids=name_of)
    def test_a_bad_value(self, pair: Pair, case: Case) -> None:
        (answer,) = case.documents(pair.client, {"memory_layers": 11})
        body = answer["body"]
        assert (answer["http_status"], body["type"], body["code"]) == (400, "validation_error", 400)
        assert body["message"] == (
            "Validation error in field 'atlas.memory_layers': value must be between 1 and 10"
        )


class TestBytes:
    """The text of an answer, without the `atlas` object, is stock's, but on /v1/responses."""

    @pytest.mark.parametrize("path", [path for path in ROUTES if not path.endswith("/responses")])
    @pytest.mark.parametrize("stream", [False, True])
    def test_of_every_route(self, pair: Pair, path: str, stream: bool) -> None:
        body = {**BODIES[path], "temperature": 0, "seed": 1, "id_slot": 0, "stream": stream}
        for server in (pair.ours, pair.stock):
            server.post(path, body)
        answer = pair.ours.post(path, {**body, "atlas": ATLAS}).text
        expected = pair.stock.post(path, body).text
        without, n_objects = re.subn(r',"atlas":\{[^}]*\}', "", answer)
        assert n_objects == 1
        assert masked(without) == masked(expected)
