"""The ready-made plugin `prompts` in the real server: what the model gets."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin.testing import LiveServer
from tests.server.completions import TEXT
from tests.server.harness import write_plugin

# Answers with the prompt in the model's place, where a header asks for it.
PROBE = """
from atlas_plugin import Respond, Response, hookimpl

@hookimpl
def on_prompt(request, prompt):
    if "x-show" in request.headers:
        return Respond(Response(200, {"prompt": prompt}))
"""
KEYS = ["key-of-ada", "key-of-ben", "key-of-cleo"]
LONG = "Speak of trains, and of nothing else. " * 8
CONFIG = f"""
[plugins.prompts]

[[plugins.prompts.rules]]
models = ["after"]
text = "OURS"
mode = "after"

[[plugins.prompts.rules]]
models = ["replace"]
text = "OURS"
mode = "replace"

[[plugins.prompts.rules]]
models = ["long"]
text = "{LONG}"

[[plugins.prompts.rules]]
keys_sha256 = ["{hashlib.sha256(KEYS[1].encode()).hexdigest()}"]
file = "FILE"

[[plugins.prompts.rules]]
keys_sha256 = ["{hashlib.sha256(KEYS[0].encode()).hexdigest()}"]
models = []
text = "OURS"
"""
USER = {"role": "user", "content": "Hi"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    directory = tmp_path_factory.mktemp("server")
    (directory / "ben.txt").write_text("FOR BEN\n", encoding="utf-8")
    config = directory / "atlas.toml"
    config.write_text(CONFIG.replace("FILE", str(directory / "ben.txt")), encoding="utf-8")
    keys = ["--api-key", ",".join(KEYS)]
    arguments = ["--atlas-config", str(config), *keys]
    plugins = ["prompts", str(write_plugin(directory, PROBE))]
    with LiveServer(directory=directory, plugins=plugins, arguments=arguments) as server:
        yield server


def prompt(server: LiveServer, path: str, body: dict[str, Any], key: str = KEYS[0]) -> str:
    answer = server.post(path, body, {"X-Show": "1", "Authorization": f"Bearer {key}"})
    assert answer.status == 200, answer.text
    return str(answer.json()["prompt"])


def system(text: str, user: str = "Hi") -> str:
    """The demo model's template."""
    return f"<|system|>{text}<|end|><|user|>{user}<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("path", "own", "body"),
    [
        ("/v1/chat/completions", "", {"messages": [USER]}),
        ("/chat/completions", "", {"messages": [USER]}),
        ("/v1/chat/completions", "OWN", {"messages": [{"role": "system", "content": "OWN"}, USER]}),
        ("/v1/messages", "", {"messages": [USER]}),
        ("/v1/messages", "OWN", {"messages": [USER], "system": "OWN"}),
        ("/v1/messages", "OWN", {"messages": [USER], "system": [{"type": "text", "text": "OWN"}]}),
        ("/v1/responses", "", {"input": "Hi"}),
        ("/v1/responses", "", {"input": [USER]}),
        ("/responses", "OWN", {"input": "Hi", "instructions": "OWN"}),
    ],
)
def test_the_model_gets_ours_and_the_clients(
    server: LiveServer, path: str, own: str, body: dict[str, Any]
) -> None:
    ours_first, ours_last = (f"OURS\n\n{own}", f"{own}\n\nOURS") if own else ("OURS", "OURS")
    assert prompt(server, path, body) == system(ours_first)
    assert prompt(server, path, {**body, "model": "after"}) == system(ours_last)
    assert prompt(server, path, {**body, "model": "replace"}) == system("OURS")


def test_instructions_within_the_input(server: LiveServer) -> None:
    for content in ("OWN", [{"type": "input_text", "text": "OWN"}]):
        body = {"input": [{"role": "system", "content": content}, USER]}
        shown = prompt(server, "/v1/responses", body)
        assert shown.index("OURS") < shown.index("OWN")
        assert shown.count("<|system|>") == 1
        assert prompt(server, "/v1/responses", {**body, "model": "replace"}) == system("OURS")


def test_all_of_the_clients_instructions_are_replaced(server: LiveServer) -> None:
    messages = [
        {"role": "system", "content": "ONE"},
        USER,
        {"role": "assistant", "content": "Yes?"},
        {"role": "developer", "content": "TWO"},
        USER,
    ]
    shown = prompt(server, "/v1/chat/completions", {"messages": messages, "model": "replace"})
    turns = ["<|system|>OURS", "<|user|>Hi", "<|assistant|>Yes?", "<|user|>Hi", "<|assistant|>"]
    assert shown == "<|end|>".join(turns)


def test_keys_have_prompts_of_their_own(server: LiveServer) -> None:
    body = {"messages": [USER]}
    assert prompt(server, "/v1/chat/completions", body, KEYS[1]) == system("FOR BEN")
    # No rule is for this one.
    assert "system" not in prompt(server, "/v1/chat/completions", body, KEYS[2])
    assert prompt(server, "/v1/chat/completions", {**body, "model": "after"}, KEYS[2]) == system("OURS")


@pytest.mark.parametrize("path", ["/completion", "/v1/completions"])
def test_raw_prompts_are_left_alone(server: LiveServer, path: str) -> None:
    assert prompt(server, path, {"prompt": TEXT}) == TEXT


@pytest.mark.parametrize("body", [{}, {"messages": 1}, {"messages": [{"role": "system", "content": 1}]}])
def test_what_is_no_request_is_the_servers_to_refuse(server: LiveServer, body: dict[str, Any]) -> None:
    answer = server.post("/v1/chat/completions", body, {"Authorization": f"Bearer {KEYS[0]}"})
    assert answer.status == 400, answer.text


def test_the_prompt_is_reused(server: LiveServer) -> None:
    def ask(text: str) -> dict[str, Any]:
        body = {"model": "long", "max_tokens": 1, "messages": [{"role": "user", "content": text}]}
        answer = server.post("/v1/chat/completions", body, {"Authorization": f"Bearer {KEYS[0]}"})
        timings: dict[str, Any] = answer.json()["timings"]
        return timings

    first, second = ask("Ada lives in Paris."), ask("What is your name?")
    assert first["cache_n"] == 0
    # All of ours: what is left to compute is the client's.
    assert second["cache_n"] > 64
    assert second["prompt_n"] < 32


def test_a_session_that_the_server_keeps_has_it_once(tmp_path: Path) -> None:
    config = tmp_path / "atlas.toml"
    config.write_text("[[plugins.prompts.rules]]\ntext = 'OURS'\n", encoding="utf-8")
    plugins = ["prompts", str(write_plugin(tmp_path, PROBE))]
    arguments = ["--atlas-config", str(config), "--atlas-memory-path", str(tmp_path / "memory")]
    with LiveServer(directory=tmp_path, plugins=plugins, arguments=arguments) as server:
        body = {"messages": [USER], "max_tokens": 1, "atlas": {"session_id": "s", "history": "server"}}
        assert server.post("/v1/chat/completions", body).status == 200
        shown = server.post("/v1/chat/completions", body, {"X-Show": "1"}).json()["prompt"]
        assert shown.count("OURS") == 1
        assert shown.count("<|user|>Hi") == 2
