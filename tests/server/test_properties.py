"""Whatever JSON a completion holds: 200, a 400 that names the field, or what stock answers."""

import json
import string
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.server.completions import BODIES, REQUEST, ROUTES, found, only_atlas
from tests.server.conversations import ONE_THREAD
from tests.server.harness import STOCK_BINARY, Server, stream_events

BOUNDED = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

NAMED = "Validation error in field 'atlas"

ids = st.text(string.ascii_letters + string.digits + "._:-", min_size=1, max_size=128)
valid = st.fixed_dictionaries(
    {},
    optional={
        "session_id": ids,
        "memory_layers": st.integers(1, 10),
        "cache_strategy": st.sampled_from(["lru", "lfu", "adaptive"]),
        "batch_size": st.integers(1, 32),
        "history": st.just("client"),
    },
)
huge = st.integers(-(10**300), 10**300) | st.sampled_from([2**31, 2**32 + 1, 2**63, 2**64, -(2**63) - 1])
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-2, 40)
    | huge
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["lru", "LRU", "lfu ", "adaptive", "client", "server", "a" * 129, "a/b", "\0", "é"])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(list(REQUEST)) | st.text(max_size=10)
nearly_valid = st.builds(lambda good, name, value: {**good, name: value}, valid, names, values)
atlas_objects = valid | nearly_valid | values

texts = st.sampled_from(["a", "b c", "My name is Ada.", ""])
tokens = st.lists(st.integers(0, 200), max_size=4)
prompts = (
    texts
    | st.lists(texts | tokens | st.fixed_dictionaries({"prompt_string": texts}), max_size=5)
    | tokens
    | st.lists(texts | st.integers(0, 200), max_size=4)
    | values
)
counts = st.integers(-2, 5) | st.none() | st.sampled_from([10**6, 2**31, 2**40, 1.5, "2", [], {}, True])
parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), max_size=2)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "", "x"])},
    optional={"content": texts | parts | values, "name": values, "tool_calls": values},
)
messages = st.lists(message | values, max_size=4) | values


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Untouched upstream."""
    with Server(ONE_THREAD, directory=tmp_path_factory.mktemp("cold"), binary=STOCK_BINARY) as running:
        yield running


def status_of(expected: httpx.Response) -> int:
    """Ours for what upstream answers so: a body that it blames on itself is the client's fault."""
    return 400 if expected.status_code == 500 else expected.status_code


def is_named_error(answer: httpx.Response) -> bool:
    """Whether it is a 400 in the ATLAS format."""
    error = answer.json()["error"]
    return answer.status_code == 400 and error.keys() == {"code", "message", "type", "timestamp"}


@pytest.mark.parametrize("path", ROUTES)
@BOUNDED
@given(atlas=atlas_objects, stream=st.booleans())
@example(atlas={"session_id": "a", "history": "server", "batch_size": 1}, stream=False)
def test_any_atlas_value(server: Server, path: str, atlas: Any, stream: bool) -> None:
    answer = server.post(path, {**BODIES[path], "stream": stream, "atlas": atlas})
    if answer.status_code == 200:
        document = stream_events(answer.text) if stream else answer.json()
        assert only_atlas(document)["session_id"] == atlas.get("session_id")
    elif answer.json()["error"]["message"] == (
        "Validation error in field 'atlas.history': \"server\" needs messages: this route takes a prompt"
    ):
        assert atlas["history"] == "server" and "prompt" in BODIES[path]
    else:
        assert is_named_error(answer), answer.text
        assert answer.json()["error"]["message"].startswith(NAMED)
        assert atlas not in ({}, REQUEST)


@BOUNDED
@given(atlas=valid)
def test_what_is_valid_is_taken(server: Server, atlas: dict[str, Any]) -> None:
    answer = server.post("/completion", {"prompt": "a", "n_predict": 1, "atlas": atlas})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ["/completion", "/v1/completions"])
@BOUNDED
@given(prompt=prompts, n=counts, batch_size=st.integers(1, 5) | st.none())
@example(prompt=["a", [1, 2], "b"], n=1, batch_size=1)
@example(prompt="a", n=2, batch_size=1)
def test_any_prompt(
    server: Server, cold: Server, path: str, prompt: Any, n: Any, batch_size: int | None
) -> None:
    if not isinstance(prompt, str) and isinstance(n, int) and n > 1:
        n = 1  # stock may leave a choice waiting for ever when another prompt of its request is refused
    body = {"prompt": prompt, "n": n, "n_predict": 2, "temperature": 0, "max_tokens": 2}
    atlas = {"batch_size": batch_size} if batch_size else {}
    expected = cold.post(path, body)
    for sent in (body, {**body, "atlas": atlas}):
        answer = server.post(path, sent)
        assert answer.status_code == status_of(expected), (answer.text, expected.text)
        if answer.status_code == 200:
            # not the text: for such prompts many tokens are equally likely
            for key in ("prompt", "index"):
                assert list(found(answer.json(), key)) == list(found(expected.json(), key))
        else:
            assert answer.json() == expected.json()


def typed(sent: Any) -> Any:
    """With the types of messages, which /v1/responses of stock wants and ours does not."""
    return [
        {"type": "message", **one} if isinstance(one, dict) and "role" in one else one
        for one in (sent if isinstance(sent, list) else [])
    ] or sent


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
@BOUNDED
@given(sent=messages)
def test_any_messages(server: Server, cold: Server, path: str, sent: Any) -> None:
    sent = typed(sent) if path == "/v1/responses" else sent
    body = {**BODIES[path], ("input" if path == "/v1/responses" else "messages"): sent}
    expected = cold.post(path, body)
    for atlas in ({}, {"session_id": "any-messages"}):
        answer = server.post(path, {**body, "atlas": atlas})
        if path == "/v1/messages" and not isinstance(sent, list):  # upstream answers nothing at all
            assert is_named_error(answer), answer.text
            continue
        assert answer.status_code == status_of(expected), (answer.text, expected.text)
        if answer.status_code != 200:
            assert answer.json()["error"]["message"].endswith(expected.json()["error"]["message"])


def is_a_question(sent: Any) -> bool:
    """Whether any of the messages is to be answered."""
    return any(one["role"] not in ("system", "developer", "assistant") for one in sent)


@BOUNDED
@given(sent=messages)
@example(sent=[{"role": "system", "content": "a"}])
@example(sent=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
def test_any_messages_with_a_record(server: Server, cold: Server, sent: Any) -> None:
    name = "any-record"
    server.post("/v1/atlas/memory/delete", {"context_id": name})
    body = {**BODIES["/v1/chat/completions"], "messages": sent}
    expected = cold.post("/v1/chat/completions", body)
    atlas = {"session_id": name, "history": "server"}
    for _ in range(2):
        answer = server.post("/v1/chat/completions", {**body, "atlas": atlas})
        if expected.status_code == 200 and not is_a_question(sent):
            assert is_named_error(answer), answer.text
            return
        # a record in front of the messages can only make more of them acceptable
        assert answer.status_code in (status_of(expected), 200), (answer.text, expected.text)
    if answer.status_code == 200:
        loaded = server.post("/v1/atlas/memory/load", {"context_id": name})
        assert loaded.status_code == 200, loaded.text


@BOUNDED
@given(name=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=140) | ids)
def test_any_conversation_header(server: Server, name: str) -> None:
    sent = {"prompt": "a", "n_predict": 1, "atlas": {}}
    answer = server.client.post("/completion", json=sent, headers={"X-Conversation-Id": name})
    assert answer.status_code == 200, answer.text
    is_id = 0 < len(name) <= 128 and set(name) <= set(string.ascii_letters + string.digits + "._:-")
    other = f"sha256:{sha256(name.encode()).hexdigest()}" if name else None
    assert answer.json()["atlas"]["session_id"] == (name if is_id else other)


DEEP = 200_000


@pytest.mark.parametrize("opened", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize(
    "atlas",
    [
        "",
        '"atlas": {},',
        '"atlas": {"session_id": "a"},',
        '"atlas": {"session_id": "a", "history": "server"},',
    ],
)
@pytest.mark.parametrize("path", ROUTES)
def test_any_depth(server: Server, path: str, atlas: str, opened: str) -> None:
    closed = "".join({"[": "]", "{": "}"}[letter] for letter in reversed(opened) if letter in "[{")
    deep = opened * DEEP + "1" + closed * DEEP
    for field in ("prompt", "messages", "input", "n", "unknown"):
        rest = json.dumps(BODIES[path] if field == "unknown" else {})[1:-1]
        content = f'{{{atlas} "{field}": {deep}{", " if rest else ""}{rest}}}'
        answer = server.client.post(path, content=content)
        assert answer.status_code == 400, answer.text[:300]
    assert server.answers("/health")


@pytest.mark.parametrize("operation", ["save", "load", "list", "delete", "pin", "flush"])
def test_any_depth_of_an_operation(server: Server, operation: str) -> None:
    content = '{"a": 1, "state": ' + "[" * DEEP + "]" * DEEP + ', "context_id": "a", "limit": 1}'
    for path in (f"/v1/atlas/memory/{operation}", "/v1/atlas/config"):
        assert server.client.post(path, content=content).status_code == 400
    assert server.answers("/health")
