"""The `atlas` object on the completion routes: what is accepted, what is refused."""

import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.completions import BODIES, MESSAGES, REQUEST, ROUTES, complete, found, only_atlas
from tests.server.harness import Server

UNKNOWN_FIELD = "unknown field; known are session_id, memory_layers, cache_strategy, batch_size and history"
INVALID_ID = "value must be a string of 1 to 128 characters of A-Z a-z 0-9 . _ : -"
BETWEEN_1_AND_10 = "value must be between 1 and 10"
INTEGER = "value must be an integer between 1 and 10"
STRATEGY = 'value must be "lru", "lfu" or "adaptive"'
INVALID: list[tuple[Any, str, str]] = [
    (None, "atlas", "value must be an object"),
    ("ada", "atlas", "value must be an object"),
    (7, "atlas", "value must be an object"),
    (True, "atlas", "value must be an object"),
    ([], "atlas", "value must be an object"),
    ([{"session_id": "a"}], "atlas", "value must be an object"),
    ({"memory_layers": 0}, "atlas.memory_layers", BETWEEN_1_AND_10),
    ({"memory_layers": 11}, "atlas.memory_layers", BETWEEN_1_AND_10),
    ({"memory_layers": -1}, "atlas.memory_layers", BETWEEN_1_AND_10),
    ({"memory_layers": 2**31 + 3}, "atlas.memory_layers", BETWEEN_1_AND_10),
    ({"memory_layers": 2**32 + 3}, "atlas.memory_layers", BETWEEN_1_AND_10),
    ({"memory_layers": 2**63 + 3}, "atlas.memory_layers", BETWEEN_1_AND_10),
    ({"memory_layers": 2**64 - 1}, "atlas.memory_layers", BETWEEN_1_AND_10),
    ({"memory_layers": -(2**63)}, "atlas.memory_layers", BETWEEN_1_AND_10),
    ({"memory_layers": 2**64 + 3}, "atlas.memory_layers", INTEGER),
    ({"memory_layers": 10**100}, "atlas.memory_layers", INTEGER),
    ({"memory_layers": 3.0}, "atlas.memory_layers", INTEGER),
    ({"memory_layers": 3.5}, "atlas.memory_layers", INTEGER),
    ({"memory_layers": "3"}, "atlas.memory_layers", INTEGER),
    ({"memory_layers": True}, "atlas.memory_layers", INTEGER),
    ({"memory_layers": None}, "atlas.memory_layers", INTEGER),
    ({"memory_layers": [3]}, "atlas.memory_layers", INTEGER),
    ({"batch_size": 0}, "atlas.batch_size", "value must be between 1 and 32"),
    ({"batch_size": 33}, "atlas.batch_size", "value must be between 1 and 32"),
    ({"batch_size": {}}, "atlas.batch_size", "value must be an integer between 1 and 32"),
    ({"cache_strategy": "LRU"}, "atlas.cache_strategy", STRATEGY),
    ({"cache_strategy": ""}, "atlas.cache_strategy", STRATEGY),
    ({"cache_strategy": 1}, "atlas.cache_strategy", STRATEGY),
    ({"cache_strategy": None}, "atlas.cache_strategy", STRATEGY),
    ({"session_id": ""}, "atlas.session_id", INVALID_ID),
    ({"session_id": "a" * 129}, "atlas.session_id", INVALID_ID),
    ({"session_id": "a" * 1_000_000}, "atlas.session_id", INVALID_ID),
    ({"session_id": "a b"}, "atlas.session_id", INVALID_ID),
    ({"session_id": "../../etc/passwd"}, "atlas.session_id", INVALID_ID),
    ({"session_id": "a\n"}, "atlas.session_id", INVALID_ID),
    ({"session_id": "a\0"}, "atlas.session_id", INVALID_ID),
    ({"session_id": "ädä"}, "atlas.session_id", INVALID_ID),
    ({"session_id": "%s%n"}, "atlas.session_id", INVALID_ID),
    ({"session_id": 7}, "atlas.session_id", INVALID_ID),
    ({"session_id": None}, "atlas.session_id", INVALID_ID),
    ({"session_id": ["a"]}, "atlas.session_id", INVALID_ID),
    ({"history": "none"}, "atlas.history", 'value must be "client" or "server"'),
    ({"history": None}, "atlas.history", 'value must be "client" or "server"'),
    (
        {"history": "server"},
        "atlas.history",
        '"server" needs a session: give atlas.session_id too',
    ),
    ({"session": "a"}, "atlas.session", UNKNOWN_FIELD),
    ({"": 1}, "atlas.", UNKNOWN_FIELD),
    ({"Session_Id": "a"}, "atlas.Session_Id", UNKNOWN_FIELD),
    ({"ünïcode": "a"}, "atlas.ünïcode", UNKNOWN_FIELD),
    ({"session_id": "a", "memory_layers": 99}, "atlas.memory_layers", BETWEEN_1_AND_10),
]


def refusal(server: Server, path: str, body: dict[str, Any]) -> str:
    """The message of a 400 in the ATLAS format."""
    response = server.post(path, body)
    assert response.status_code == 400, response.text
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    document = response.json()
    error = document["error"]
    assert list(document) == ["error"]
    assert list(error) == ["code", "message", "type", "timestamp"]
    assert (error["code"], error["type"]) == (400, "validation_error")
    assert type(error["timestamp"]) is int
    message: str = error["message"]
    return message


class TestValidation:
    @pytest.mark.parametrize(("atlas", "field", "problem"), INVALID, ids=lambda value: f"{value!r:.40}")
    @pytest.mark.parametrize("stream", [False, True])
    def test_message(self, server: Server, atlas: Any, field: str, problem: str, stream: bool) -> None:
        message = refusal(
            server, "/v1/chat/completions", {"messages": MESSAGES, "stream": stream, "atlas": atlas}
        )
        assert message == f"Validation error in field '{field}': {problem}"

    @pytest.mark.parametrize("path", ROUTES)
    @pytest.mark.parametrize("stream", [False, True])
    def test_on_every_route_before_a_slot_is_taken(self, server: Server, path: str, stream: bool) -> None:
        def tasks() -> list[Any]:
            return [slot.get("id_task") for slot in server.get("/slots").json()]

        complete(server, "/completion")
        before = tasks()
        body = {**BODIES[path], "stream": stream, "atlas": {"batch_size": 64}}
        assert refusal(server, path, body).startswith("Validation error in field 'atlas.batch_size'")
        assert tasks() == before

    @pytest.mark.parametrize(
        "atlas", [REQUEST, *({"memory_layers": n} for n in (1, 10)), *({"batch_size": n} for n in (1, 32))]
    )
    def test_limits_are_allowed(self, server: Server, atlas: dict[str, Any]) -> None:
        assert complete(server, "/completion", atlas=atlas)["atlas"]

    def test_longest_session_id(self, server: Server) -> None:
        longest = (string.ascii_letters + string.digits + "._:-" + "x" * 128)[:128]
        answer = complete(server, "/completion", atlas={"session_id": longest})
        assert answer["atlas"]["session_id"] == longest

    @pytest.mark.parametrize("opened", ["", '{"session_id":', '{"unknown":'])
    def test_depth_does_not_matter(self, server: Server, opened: str) -> None:
        depth = 300_000
        atlas = f"{opened}{'[' * depth}{']' * depth}{'}' if opened else ''}"
        response = server.client.post("/completion", content=f'{{"prompt": "a", "atlas": {atlas}}}')
        assert response.status_code == 400, response.text
        assert server.answers("/health")

    def test_repeated_object_counts_once(self, server: Server) -> None:
        content = (
            '{"prompt": "a", "n_predict": 1, "atlas": {"session_id": "a"}, "atlas": {"session_id": "b"}}'
        )
        response = server.client.post("/completion", content=content)
        assert only_atlas(response.json())["session_id"] == "b"

    def test_infill_says_what_stock_says(self, server: Server, stock: Server) -> None:
        body = {"input_prefix": "a", "input_suffix": "b"}
        expected = stock.post("/infill", body)
        answer = server.post("/infill", {**body, "atlas": REQUEST})
        assert (answer.status_code, answer.json()) == (expected.status_code, expected.json())


class TestNotAnObjectOfOurs:
    """Bodies that ATLAS has no part in are answered as by stock."""

    @pytest.mark.parametrize(
        "content", [b"[]", b'["atlas"]', b'"atlas"', b"null", b'{"ATLAS": {}, "prompt": {}}']
    )
    @pytest.mark.parametrize("path", ["/completion", "/v1/chat/completions"])
    def test_errors_are_stock(self, server: Server, stock: Server, path: str, content: bytes) -> None:
        answer, expected = (each.client.post(path, content=content) for each in (server, stock))
        assert (answer.status_code, answer.text) == (expected.status_code, expected.text)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b'{"atlas": {"session_id": }}',
            b'{"atlas": {"session_id": "\xff"}}',
            b'{"atlas": {"session_id": "\\ud800"}}',
            b'{"atlas": {"memory_layers": 1e999}}',
            b'{"atlas": NaN}',
        ],
    )
    @pytest.mark.parametrize("path", ["/completion", "/v1/chat/completions"])
    def test_what_is_no_json(self, server: Server, stock: Server, path: str, content: bytes) -> None:
        """Is the request's fault, which stock calls its own."""
        answer, expected = (each.client.post(path, content=content) for each in (server, stock))
        assert (answer.status_code, expected.status_code) == (400, 500)
        assert answer.json()["error"]["message"].endswith(expected.json()["error"]["message"])

    def test_the_word_in_a_message(self, server: Server) -> None:
        text = 'Say "atlas": {"session_id": "a"}'
        answer = complete(server, "/v1/chat/completions", messages=[{"role": "user", "content": text}])
        assert "atlas" not in answer
        prompt = complete(server, "/completion", prompt=text)["prompt"]
        assert prompt.endswith(text)

    def test_below_the_top(self, server: Server) -> None:
        answer = complete(server, "/v1/chat/completions", metadata={"atlas": {"session_id": 7}})
        assert not list(found(answer, "atlas"))


SESSION_CHARACTERS = set(string.ascii_letters + string.digits + "._:-")


def is_valid(atlas: Any) -> bool:
    """The documented rules, a second time."""

    def is_integer(value: Any, most: int) -> bool:
        return type(value) is int and 1 <= value <= most

    def is_session(value: Any) -> bool:
        return isinstance(value, str) and 1 <= len(value) <= 128 and set(value) <= SESSION_CHARACTERS

    rules: dict[str, Callable[[Any], bool]] = {
        "session_id": is_session,
        "memory_layers": lambda value: is_integer(value, 10),
        "cache_strategy": lambda value: isinstance(value, str) and value in {"lru", "lfu", "adaptive"},
        "batch_size": lambda value: is_integer(value, 32),
        "history": lambda value: value == "client",
    }
    return isinstance(atlas, dict) and all(key in rules and rules[key](value) for key, value in atlas.items())


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-1, 40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.text("abcXYZ019._:-", max_size=140)
    | st.sampled_from(["lru", "lfu", "adaptive", "client", "server"])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
objects = st.dictionaries(st.sampled_from(list(REQUEST)), leaves, max_size=5)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(atlas=objects | values)
def test_any_json_is_answered(server: Server, atlas: Any) -> None:
    response = server.post("/completion", {"prompt": "a", "n_predict": 1, "atlas": atlas})
    assert response.status_code == (200 if is_valid(atlas) else 400), response.text
    if response.status_code == 200:
        assert response.json()["atlas"]["session_id"] == atlas.get("session_id")
