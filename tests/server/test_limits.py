"""Requests that must not end the process, nor hold it up: each is refused, and the process answers on."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.harness import MODEL, Server
from tests.server.upstream_routes import upstream_routes

MANY = 60_000
DEEP = 100_000

# Where the demo model, or the way that the server was started, has no part in it.
NOT_SUPPORTED = {403, 404, 501}

# Which of llama-server's routes answer without a look at the body.
# Whose bodies Python reads.
OF_PYTHON = ("/v1/atlas/", "/v1/conversations", "/v1/chat/completions/status", "/v1/responses/status")
BODILESS = {"/props", "/slots/0?action=erase"}
# And of ours.
BODILESS |= {"/v1/atlas/plugins/reload", "/v1/atlas/plugins/status/enable"}

COMPLETIONS = ["/completion", "/v1/completions", "/infill"]
CHATS = ["/v1/chat/completions", "/v1/responses"]
TEMPLATES = ["/apply-template", "/v1/chat/completions/input_tokens", "/v1/responses/input_tokens"]


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
    model = directory / "model.gguf"
    script = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata"]
    infills = [
        word for kind in ("fim_pre", "fim_suf", "fim_mid") for word in ("--special-token", kind, "<|pad|>")
    ]
    subprocess.run([*script, *infills, MODEL, model], check=True, capture_output=True)
    with Server(["--slot-save-path", directory, "--props"], directory=directory, model=model) as running:
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
    return {"prompt": "a", "input_prefix": "a", "input_suffix": "a", "n_predict": 1, **parameters}


def chat(**parameters: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "a"}], "input": "a", "max_tokens": 1, **parameters}


def posts(server: Server) -> list[str]:
    """Every route that takes a body, llama-server's own and ours."""
    slots = [f"/slots/0?action={action}" for action in ("save", "restore", "erase")]
    theirs = [path for method, path in upstream_routes() if method == "POST" and path != "/slots/0"]
    described = server.get("/v1/atlas/openapi.json").json()["paths"]
    ours = [re.sub("{.*?}", "status", path) for path, methods in described.items() if "post" in methods]
    assert {path for path in ours if path.startswith("/v1/atlas/")}
    return [*slots, *theirs, *ours]


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")], ids=["arrays", "objects"])
def test_depth_of_a_body(limited: Server, opened: str, closed: str) -> None:
    deep = opened * DEEP + "1" + closed * DEEP
    fields = ("content", "messages", "prompt", "input", "tokens", "conversation_ids", "filename", "state")
    refused = []
    for path in posts(limited):
        for body in (deep, "{" + ",".join(f'"{name}":{deep}' for name in fields) + "}"):
            answer = limited.client.post(path, content=body)
            if answer.status_code not in NOT_SUPPORTED and path not in BODILESS:
                assert answer.status_code == 400, path
                levels = 900 if path.startswith(OF_PYTHON) else 1000
                assert f"nested deeper than {levels} levels" in answer.json()["error"]["message"], path
                refused.append(path)
        assert_answers(limited)
    assert {*COMPLETIONS, *CHATS, *TEMPLATES, "/tokenize", "/v1/messages", "/v1/atlas/config"} <= {*refused}


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


def test_every_route_with_a_grammar_or_a_schema(limited: Server) -> None:
    grammar, words = GRAMMARS["groups"]
    for path in COMPLETIONS:
        assert words in refusal(limited, path, completion(grammar=grammar))
    for path in CHATS:
        assert words in refusal(limited, path, chat(grammar=grammar))
    schema, words = SCHEMAS["cycle"]
    formatted = {"type": "json_schema", "json_schema": {"schema": schema}}
    for path in COMPLETIONS:
        assert words in refusal(limited, path, completion(json_schema=schema))
    for path in [*CHATS, *TEMPLATES]:
        assert words in refusal(limited, path, chat(json_schema=schema, response_format=formatted))


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
