"""Requests that must not end the process, nor hold it up: each is refused, and the process answers on."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.harness import MODEL, Server

MANY = 60_000
DEEP = 100_000

ROUTES = [
    "/apply-template",
    "/completion",
    "/detokenize",
    "/embedding",
    "/infill",
    "/lora-adapters",
    "/rerank",
    "/slots/0?action=restore",
    "/slots/0?action=save",
    "/tokenize",
    "/v1/chat/completions",
    "/v1/chat/completions/control",
    "/v1/chat/completions/input_tokens",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/rerank",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/streams/lookup",
]
# Where the demo model, or the way the server was started, has no part in it.
NOT_SUPPORTED = {"/embedding", "/infill", "/rerank", "/v1/embeddings", "/v1/rerank"}


def nested(levels: int, leaf: Any, wrap: Any) -> Any:
    for _ in range(levels):
        leaf = wrap(leaf)
    return leaf


def definitions(count: int) -> dict[str, Any]:
    """A $ref that leads to another one, and so on."""
    chain: dict[str, Any] = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(count)}
    return {"$ref": "#/$defs/a0", "$defs": {**chain, f"a{count}": {"type": "string"}}}


CYCLE = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "allOf": [{"$ref": "#/$defs/a"}]}
SPECIAL = "_" * MANY
LEFT_RECURSIVE = json.dumps({"parsers": [{"type": "ref", "name": "r"}], "rules": {"r": 0}, "root": 0})
DOUBLING = "\n".join(
    ["root ::= a0", *(f'a{i} ::= a{i + 1} "x" | a{i + 1} "y"' for i in range(40)), 'a40 ::= "x"']
)
GRAMMARS = {
    "groups": ("root ::= " + "(" * MANY + '"a"' + ")" * MANY, "stack"),
    "rules": (
        "\n".join(["root ::= a0", *(f"a{i} ::= a{i + 1}" for i in range(5 * MANY)), f'a{5 * MANY} ::= "a"']),
        "stack",
    ),
    "ways": (DOUBLING, "ways in which the grammar may go on"),
    "repetitions": ("root ::= " + "[a-z]{0,2000} " * 2000, "repetitions written out"),
    "literals": ('root ::= "' + "a" * MANY + '"{2000}', "repetitions written out"),
}
SCHEMAS = {
    "cycle": (CYCLE, "$ref"),
    "chain": (definitions(20_000), "stack"),
    "name": ({"properties": {SPECIAL: {"type": "string"}}}, "no letters"),
    "ref": ({"$ref": f"#/$defs/{SPECIAL}", "$defs": {SPECIAL: {"type": "string"}}}, "no letters"),
    "letters": (
        {"properties": {"a" * MANY: {"type": "string"}}, "additionalProperties": True},
        "bytes in the name",
    ),
    "properties": ({"properties": {f"a{i}": {"type": "string"} for i in range(10_000)}}, "at most 2000"),
}
TRIGGERS = {
    "kind": ({"type": 99, "value": "a"}, "type must be"),
    "groups": ({"type": 2, "value": "(" * MANY + ")" * MANY}, "too long"),
    "word": ({"type": 1, "value": "a" * MANY}, "too long"),
    "counted": ({"type": 2, "value": "(){99}{99}{9}"}, "too long"),
}
PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "look-back": ({"repeat_last_n": 2**31 - 1}, "repeat_last_n"),
    "dry-look-back": ({"dry_penalty_last_n": 2**31 - 1, "dry_multiplier": 1}, "dry_penalty_last_n"),
    "choices": ({"n": 1e30}, "'n'"),
    "length": ({"n_predict": 1e30}, "n_predict"),
    "generated-parser": ({"chat_parser": LEFT_RECURSIVE}, "stack"),
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("limits")
    with Server(["--slot-save-path", directory], directory=directory) as running:
        yield running


def assert_answers(server: Server) -> None:
    """The same process computes."""
    assert server.process is not None
    assert server.process.poll() is None, server.log[-2000:]
    assert server.post("/completion", {"prompt": "a", "n_predict": 1}).status_code == 200


def refusal(server: Server, path: str, body: Any, status: int = 400) -> str:
    """The message of an error, after which the server answers on."""
    answer = server.post(path, body)
    assert answer.status_code == status, answer.text[:300]
    assert_answers(server)
    message: str = answer.json()["error"]["message"]
    return message


def completion(**parameters: Any) -> dict[str, Any]:
    return {"prompt": "a", "n_predict": 1, **parameters}


def chat(**parameters: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, **parameters}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")], ids=["arrays", "objects"])
def test_depth_of_a_body(limited: Server, path: str, opened: str, closed: str) -> None:
    deep = opened * DEEP + "1" + closed * DEEP
    fields = ("content", "messages", "prompt", "input", "tokens", "conversation_ids", "filename")
    answer = limited.client.post(path, content="{" + ",".join(f'"{name}":{deep}' for name in fields) + "}")
    assert_answers(limited)
    if path not in NOT_SUPPORTED:
        assert answer.status_code == 400
        assert "nested deeper than 1000 levels" in answer.json()["error"]["message"]


def test_depth_that_is_allowed(limited: Server) -> None:
    deep = nested(900, {"type": "string"}, lambda inner: {"type": "array", "items": inner})
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": deep}}}}
    arguments = "[" * 900 + "]" * 900
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
    ]
    for body in (chat(json_schema=deep), chat(tools=[tool]), chat(chat_template_kwargs={"a": deep})):
        assert limited.post("/v1/chat/completions", body).status_code == 200
    assert limited.post("/v1/chat/completions", {**chat(), "messages": messages}).status_code == 200
    assert limited.post("/apply-template", {**chat(tools=[tool]), "messages": messages}).status_code == 200


def test_depth_in_a_router(start_server: StartServer, tmp_path: Path) -> None:
    router = start_server(["--models-dir", tmp_path], model=None)
    content = f'{{"model": "a", "content": {"[" * DEEP}{"]" * DEEP}}}'
    for path in ("/models/load", "/models/unload", "/tokenize", "/v1/completions"):
        assert router.client.post(path, content=content).status_code == 400
        assert router.answers("/health")


@pytest.mark.parametrize("name", GRAMMARS)
@pytest.mark.parametrize("stream", [False, True])
def test_grammars(limited: Server, name: str, stream: bool) -> None:
    grammar, words = GRAMMARS[name]
    for path, body in (("/completion", completion), ("/v1/chat/completions", chat)):
        assert words in refusal(limited, path, body(grammar=grammar, stream=stream))
    lazy: dict[str, Any] = {"grammar_lazy": True, "grammar_triggers": [{"type": 1, "value": "not one token"}]}
    assert words in refusal(limited, "/completion", completion(grammar=grammar, **lazy))


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas(limited: Server, name: str) -> None:
    schema, words = SCHEMAS[name]
    formatted = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert words in refusal(limited, "/completion", completion(json_schema=schema))
    assert words in refusal(limited, "/v1/chat/completions", chat(response_format=formatted))


def test_names_of_tools(limited: Server) -> None:
    for name in (SPECIAL, "a" * MANY):
        tool = {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
        limited.post("/v1/chat/completions", chat(tools=[tool]))
        assert_answers(limited)


@pytest.mark.parametrize("name", TRIGGERS)
def test_triggers(limited: Server, name: str) -> None:
    trigger, words = TRIGGERS[name]
    body = completion(grammar='root ::= "a"', grammar_lazy=True, grammar_triggers=[trigger])
    assert words in refusal(limited, "/completion", body)


def test_a_trigger_that_takes_exponential_time(limited: Server) -> None:
    trigger = {"type": 2, "value": "((.|[a-z])+)+@@"}
    body = completion(grammar='root ::= "a"', grammar_lazy=True, grammar_triggers=[trigger])
    assert "too many steps" in refusal(limited, "/completion", {**body, "n_predict": 200}, 500)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(limited: Server, name: str) -> None:
    parameters, words = PARAMETERS[name]
    assert words in refusal(limited, "/completion", completion(**parameters))


@pytest.mark.parametrize("pre_tokenizer", ["gpt-4o", "bloom", "deepseek-v3", "minicpm5", "tekken"])
def test_words_of_a_pre_tokenizer(start_server: StartServer, tmp_path: Path, pre_tokenizer: str) -> None:
    """Those that std::regex splits a text for."""
    model = tmp_path / "model.gguf"
    script = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--pre-tokenizer", pre_tokenizer]
    subprocess.run([*script, MODEL, model], check=True, capture_output=True)
    server = start_server(model=model)
    text = "a" * 500_000
    for path, body in (
        ("/tokenize", {"content": text}),
        ("/completion", completion(prompt=text)),
        ("/completion", completion(prompt=[1, text])),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": text}]}),
        ("/completion", completion(stop=["a"], logit_bias=[[text, 1.0]])),
    ):
        assert "stack" in refusal(server, path, body)
    server.post("/completion", completion(grammar=f"root ::= <{text}>"))
    assert_answers(server)
    words = "word " * 100_000
    assert len(server.post("/tokenize", {"content": words}).json()["tokens"]) > 0
