"""Requests without an `atlas` object get the very answers of an untouched llama-server."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.server.comparison import as_stock_has_it, normalised
from tests.server.conftest import StartServer
from tests.server.harness import STOCK_BINARY, Server, stream_events

VARYING_HEADERS = {"content-length", "date"}
API_KEY = "compatibility"

TEXT = "My name is Ada. What is my name?"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
SAMPLED = {"seed": 7, "temperature": 0}
LEGACY = {"prompt": TEXT, "n_predict": 8, **SAMPLED}
TEXT_COMPLETION = {"prompt": TEXT, "max_tokens": 8, **SAMPLED}
CHAT = {"messages": MESSAGES, "max_tokens": 8, **SAMPLED}
RESPONSES = {"input": TEXT, "max_output_tokens": 8, **SAMPLED}
ANTHROPIC = {"messages": MESSAGES[1:], "max_tokens": 8, **SAMPLED}


@dataclass(frozen=True)
class Case:
    """One request. Its name is the test's."""

    name: str
    method: str
    path: str
    body: Any = None
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, server: Server) -> httpx.Response:
        body = {"json": self.body} if self.content is None else {"content": self.content}
        return server.client.request(
            self.method, self.path, headers=self.headers, **(body if self.method == "POST" else {})
        )


def post(name: str, path: str, body: Any, **headers: str) -> Case:
    return Case(name, "POST", path, body, headers=headers)


def both(name: str, path: str, body: dict[str, Any]) -> list[Case]:
    """Whole, and streamed."""
    return [post(name, path, body), post(f"{name}-streamed", path, {**body, "stream": True})]


CASES = [
    *both("completion", "/completion", LEGACY),
    *both("completions", "/completions", LEGACY),
    *both("completion-again", "/completion", LEGACY),
    *both("completion-prompts", "/completion", {**LEGACY, "prompt": ["One.", "Another one.", [2, 3]]}),
    *both("completion-probabilities", "/completion", {**LEGACY, "n_probs": 3}),
    *both("completion-fields", "/completion", {**LEGACY, "response_fields": ["content", "stop_type"]}),
    *both("completion-sampled", "/completion", {**LEGACY, "temperature": 1.5, "seed": 42}),
    *both("completion-stop", "/completion", {**LEGACY, "stop": ["a"], "cache_prompt": False}),
    post("completion-grammar", "/completion", {**LEGACY, "grammar": 'root ::= "yes" | "no"'}),
    post("completion-bad-grammar", "/completion", {**LEGACY, "grammar": "root ::= ("}),
    *both("completion-no-prompt", "/completion", {"n_predict": 1}),
    *both("completion-bad-prompt", "/completion", {"prompt": {"a": 1}}),
    *both("completion-too-long", "/completion", {**LEGACY, "prompt": "a b c d " * 4000}),
    post("completion-empty", "/completion", {**LEGACY, "prompt": ""}),
    *both("text", "/v1/completions", TEXT_COMPLETION),
    *both("text-logprobs", "/v1/completions", {**TEXT_COMPLETION, "logprobs": 2}),
    *both("text-choices", "/v1/completions", {**TEXT_COMPLETION, "n": 2}),
    *both("text-echo", "/v1/completions", {**TEXT_COMPLETION, "echo": True}),
    *both("chat", "/v1/chat/completions", CHAT),
    *both("chat-old-path", "/chat/completions", CHAT),
    *both("chat-logprobs", "/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2}),
    *both("chat-choices", "/v1/chat/completions", {**CHAT, "n": 2}),
    *both("chat-usage", "/v1/chat/completions", {**CHAT, "stream_options": {"include_usage": True}}),
    *both("chat-schema", "/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}),
    *both("chat-tools", "/v1/chat/completions", {**CHAT, "tools": [TOOL]}),
    *both("chat-no-messages", "/v1/chat/completions", {"max_tokens": 1}),
    *both("chat-mentions-atlas", "/v1/chat/completions", {**CHAT, "metadata": {"atlas": {"session_id": 1}}}),
    *both("responses-no-input", "/v1/responses", {}),
    *both("anthropic", "/v1/messages", ANTHROPIC),
    post("anthropic-count", "/v1/messages/count_tokens", ANTHROPIC),
    post("chat-count", "/v1/chat/completions/input_tokens", CHAT),
    *both("infill", "/infill", {"input_prefix": "a", "input_suffix": "b"}),
    post("conversation", "/v1/chat/completions", {**CHAT, "stream": True}, **{"X-Conversation-Id": "c-1"}),
    post("streams", "/v1/streams/lookup", {"conversation_ids": ["c-1"]}),
    post("tokenize", "/tokenize", {"content": TEXT, "with_pieces": True}),
    post("detokenize", "/detokenize", {"tokens": [5, 6, 7]}),
    post("template", "/apply-template", {"messages": MESSAGES}),
    post("embedding", "/embedding", {"content": TEXT}),
    post("embeddings", "/v1/embeddings", {"input": TEXT}),
    post("rerank", "/rerank", {"query": "a", "documents": ["b"]}),
    post("props-post", "/props", {}),
    post("slots-post", "/slots/0?action=erase", {}),
    post("lora", "/lora-adapters", []),
    Case("health", "GET", "/health"),
    Case("health-v1", "GET", "/v1/health"),
    Case("props", "GET", "/props"),
    Case("slots", "GET", "/slots"),
    Case("models", "GET", "/v1/models"),
    Case("models-old", "GET", "/models"),
    Case("metrics", "GET", "/metrics"),
    Case("root", "GET", "/"),
    Case("unknown", "GET", "/v1/nothing"),
    Case("unknown-post", "POST", "/v1/nothing", {}),
    Case("similar", "GET", "/v1/atlasx"),
    Case("wrong-method", "GET", "/completion"),
    Case("put", "PUT", "/completion"),
    Case("delete", "DELETE", "/props"),
    Case("head", "HEAD", "/health"),
    Case("head-unknown", "HEAD", "/v1/nothing"),
    Case("cors", "GET", "/health", headers={"Origin": "http://localhost:3000"}),
    Case("cors-elsewhere", "GET", "/health", headers={"Origin": "https://example.org"}),
    Case("cors-options", "OPTIONS", "/v1/chat/completions", headers={"Origin": "http://localhost:3000"}),
    Case("array", "POST", "/v1/chat/completions", content=b"[]"),
    Case("null", "POST", "/completion", content=b"null"),
]
KEPT_RESPONSES = [
    *both("responses", "/v1/responses", RESPONSES),
    *both("responses-old-path", "/responses", RESPONSES),
]
# Stock says that the server is at fault.
BAD_BODIES = [
    Case("bad-json", "POST", "/v1/chat/completions", content=b'{"messages": ['),
    Case("bad-utf8", "POST", "/completion", content=b'{"prompt": "\xff"}'),
    Case("no-body", "POST", "/completion", content=b""),
    Case("form", "POST", "/completion", content=b"prompt=a", headers={"Content-Type": "text/plain"}),
    Case("nan", "POST", "/completion", content=b'{"prompt": "a", "n_predict": NaN}'),
    Case("huge", "POST", "/completion", content=b'{"prompt": "a", "n_predict": 1e999}'),
    Case("tokenize-nan", "POST", "/tokenize", content=b'{"content": Infinity}'),
    post("detokenize-wrong", "/detokenize", {"tokens": "x"}),
    post("detokenize-unknown", "/detokenize", {"tokens": [-1]}),
    post("tokenize-unknown", "/tokenize", {"content": [2**31 - 1], "with_pieces": True}),
    *both("chat-bad-role", "/v1/chat/completions", {"messages": [{"content": TEXT}]}),
    *both("anthropic-no-messages", "/v1/messages", {"max_tokens": 1}),
    post("anthropic-count-nothing", "/v1/messages/count_tokens", {}),
]
WITH_ATLAS = [
    *both("atlas-ignored", "/v1/chat/completions", {**CHAT, "atlas": {"session_id": "a"}}),
    *both("atlas-wrong-ignored", "/completion", {**LEGACY, "atlas": {"memory_layers": 99}}),
    *both("atlas-responses-ignored", "/v1/responses", {**RESPONSES, "atlas": 7}),
    *both("atlas-anthropic-ignored", "/v1/messages", {**ANTHROPIC, "atlas": None}),
    Case("no-status", "GET", "/v1/atlas/status"),
    Case("no-save", "POST", "/v1/atlas/memory/save", {"context_id": "a", "state": {}}),
]
KEY_CASES = [
    Case(f"{name}-{path}", method, path, {}, headers={"Authorization": key})
    for name, key in (("no-key", ""), ("wrong-key", "Bearer wrong"), ("key", f"Bearer {API_KEY}"))
    for method, path in (("GET", "/v1/models"), ("POST", "/completion"), ("GET", "/health"), ("GET", "/no"))
]


def described(response: httpx.Response) -> list[str]:
    """Everything of an answer that has to be equal, a line for each part."""
    headers = [f"{name}: {value}" for name, value in response.headers.items() if name not in VARYING_HEADERS]
    media = response.headers.get("content-type", "")
    if media.startswith("text/event-stream"):
        frame = re.sub(r"^data: \{.*$", "data: JSON", response.text, flags=re.MULTILINE)
        documents = stream_events(response.text)
        body = [frame, *(json.dumps(normalised(document)) for document in documents)]
    elif media.startswith("application/json") and response.content:
        body = [json.dumps(normalised(response.json()))]
    else:
        body = [response.text]
    return [str(response.status_code), *sorted(headers), *body]


Pair = tuple[Server, Server]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    with ExitStack() as stack:

        def started(*arguments: Any, **options: Any) -> Server:
            directory = tmp_path_factory.mktemp("compatibility")
            return stack.enter_context(Server(*arguments, directory=directory, **options))

        yield started


@pytest.fixture(scope="module")
def enabled(start: StartServer) -> Pair:
    """Two servers that have seen the same requests in the same order."""
    return start(), start(binary=STOCK_BINARY)


@pytest.fixture(scope="module")
def disabled(start: StartServer) -> Pair:
    return start(environment={"ATLAS_ENABLED": "0"}), start(binary=STOCK_BINARY)


@pytest.fixture(scope="module")
def locked(start: StartServer) -> Pair:
    return start(api_key=API_KEY), start(api_key=API_KEY, binary=STOCK_BINARY)


def name_of(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", KEPT_RESPONSES, ids=name_of)
def test_responses_have_all_that_stock_has(enabled: Pair, case: Case) -> None:
    answer, expected = (case.send(server) for server in enabled)
    assert (answer.status_code, expected.status_code) == (200, 200)
    if case.name.endswith("-streamed"):
        ours, stock = (stream_events(one.text) for one in (answer, expected))
    else:
        ours, stock = answer.json(), expected.json()
    assert normalised(as_stock_has_it(ours, stock)) == normalised(stock)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_answers_are_stock(enabled: Pair, case: Case) -> None:
    answer, expected = (described(case.send(server)) for server in enabled)
    assert answer == expected


@pytest.mark.parametrize("case", BAD_BODIES, ids=name_of)
def test_bad_bodies_are_the_requests_fault(enabled: Pair, case: Case) -> None:
    answer, expected = (case.send(server) for server in enabled)
    error, stock_error = (each.json()["error"] for each in (answer, expected))
    assert (answer.status_code, expected.status_code) == (400, 500)
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert error["message"].endswith(stock_error["message"])


def test_messages_that_are_no_array_are_not_answered(enabled: Pair) -> None:
    answers = [server.post("/v1/messages", {"messages": "Hello!", "max_tokens": 1}) for server in enabled]
    assert [one.status_code for one in answers] == [400, 200]
    assert "'messages'" in answers[0].json()["error"]["message"]


@pytest.mark.parametrize("case", [*CASES, *KEPT_RESPONSES, *BAD_BODIES, *WITH_ATLAS], ids=name_of)
def test_answers_are_stock_when_off(disabled: Pair, case: Case) -> None:
    answer, expected = (described(case.send(server)) for server in disabled)
    assert answer == expected


@pytest.mark.parametrize("case", KEY_CASES, ids=name_of)
def test_keys_are_asked_for_as_by_stock(locked: Pair, case: Case) -> None:
    answer, expected = (described(case.send(server)) for server in locked)
    assert answer == expected


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "status"), ("POST", "memory/load"), ("GET", "x/none"), ("PUT", "status")]
)
def test_keys_are_asked_for_by_atlas(locked: Pair, method: str, path: str) -> None:
    for key in ("", "Bearer wrong"):
        answer = locked[0].client.request(method, f"/v1/atlas/{path}", headers={"Authorization": key})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (401, 401, "authentication_error")
        assert type(error["timestamp"]) is int


def test_no_python_when_off(disabled: Pair) -> None:
    assert "[ATLAS]" not in disabled[0].log


def test_routes_have_the_prefix(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = Server(["--api-prefix", "/api"], directory=tmp_path_factory.mktemp("prefix"))
    try:
        server.spawn()
        server.wait_until(lambda: server.answers("/api/health"))
        assert server.get("/api/v1/atlas/status").json()["status"] == "healthy"
        missing = server.get("/api/v1/atlas/none")
        assert missing.json()["error"]["message"].startswith("no route GET /v1/atlas/none;")
        assert server.get("/v1/atlas/status").json()["error"]["type"] == "not_found_error"
        answer = server.post("/api/completion", {**LEGACY, "atlas": {"session_id": "a"}})
        assert answer.json()["atlas"]["session_id"] == "a"
    finally:
        server.kill()
        server.client.close()
