"""The `atlas` object on the completion routes: what is accepted, what is answered, what is refused."""

import string
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.harness import Server, stream_events

TEXT = "My name is Ada. What is my name?"
MESSAGES = [{"role": "user", "content": TEXT}]
BODIES: dict[str, dict[str, Any]] = {
    "/completion": {"prompt": TEXT, "n_predict": 4},
    "/completions": {"prompt": TEXT, "n_predict": 4},
    "/v1/completions": {"prompt": TEXT, "max_tokens": 4},
    "/chat/completions": {"messages": MESSAGES, "max_tokens": 4},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 4},
    "/responses": {"input": TEXT, "max_output_tokens": 4},
    "/v1/responses": {"input": TEXT, "max_output_tokens": 4},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 4},
}
ROUTES = list(BODIES)
REQUEST = {
    "session_id": "ada:1.2_3-4",
    "memory_layers": 3,
    "cache_strategy": "lru",
    "batch_size": 8,
    "history": "client",
}
ANSWER_TYPES = {
    "session_id": str,
    "memory_layers": int,
    "cache_hit": bool,
    "reused_tokens": int,
    "prompt_tokens": int,
    "layer": int,
    "restore_ms": float,
    "overhead_ms": float,
    "degraded": bool,
    "reason": str,
}
UNKNOWN_FIELD = "unknown field; known are session_id, memory_layers, cache_strategy, batch_size and history"
INVALID_ID = "value must be a string of 1 to 128 characters out of A-Z a-z 0-9 . _ : -"


def found(value: Any, key: str) -> Iterator[Any]:
    """What stands under `key`, wherever in `value`."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key:
                yield item
            else:
                yield from found(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from found(item, key)


def only_atlas(documents: Any) -> dict[str, Any]:
    """The one `atlas` object."""
    objects = list(found(documents, "atlas"))
    assert len(objects) == 1, documents
    atlas: dict[str, Any] = objects[0]
    return atlas


def timed_prompts(documents: Any) -> tuple[int, int]:
    """Reused and all prompt tokens, by what upstream says about each sequence."""
    timings = list(found(documents, "timings"))
    return sum(t["cache_n"] for t in timings), sum(t["cache_n"] + t["prompt_n"] for t in timings)


def reported_prompt(documents: Any) -> tuple[int, int]:
    """The same, out of the usage of an answer for one sequence."""
    usage = next(found(documents, "usage"))
    if "cache_read_input_tokens" in usage:
        return usage["cache_read_input_tokens"], usage["cache_read_input_tokens"] + usage["input_tokens"]
    if "input_tokens_details" in usage:
        return usage["input_tokens_details"]["cached_tokens"], usage["input_tokens"]
    return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


def complete(server: Server, path: str, **fields: Any) -> Any:
    """The answer's JSON: the document, or the list of a stream's."""
    response = server.post(path, {**BODIES[path], **fields})
    assert response.status_code == 200, response.text
    return stream_events(response.text) if fields.get("stream") else response.json()


class TestAnswer:
    @pytest.mark.parametrize("path", ROUTES)
    def test_of_one_document(self, server: Server, path: str) -> None:
        answer = complete(server, path, atlas=REQUEST)
        atlas = answer["atlas"]
        assert only_atlas(answer) is atlas
        assert {key: type(value) for key, value in atlas.items()} == ANSWER_TYPES
        assert (atlas["session_id"], atlas["memory_layers"]) == ("ada:1.2_3-4", 3)
        assert atlas["cache_hit"] == (atlas["reused_tokens"] > 0)
        assert (atlas["degraded"], atlas["reason"]) == (False, "below_break_even")
        measured = timed_prompts(answer) if "timings" in answer else reported_prompt(answer)
        assert (atlas["reused_tokens"], atlas["prompt_tokens"]) == measured

    @pytest.mark.parametrize("path", ROUTES)
    def test_of_a_stream(self, server: Server, path: str) -> None:
        events = complete(server, path, stream=True, atlas=REQUEST)
        atlas = only_atlas(events)
        last = events[-1].get("response", events[-1])
        assert last["atlas"] is atlas
        assert {key: type(value) for key, value in atlas.items()} == ANSWER_TYPES
        measured = timed_prompts(events) if any(found(events, "timings")) else reported_prompt(events)
        assert (atlas["reused_tokens"], atlas["prompt_tokens"]) == measured

    @pytest.mark.parametrize("path", ROUTES)
    def test_only_where_asked_for(self, server: Server, path: str) -> None:
        assert not list(found(complete(server, path), "atlas"))
        assert not list(found(complete(server, path, stream=True), "atlas"))

    def test_to_an_empty_object(self, server: Server) -> None:
        atlas = complete(server, "/completion", atlas={})["atlas"]
        assert list(atlas) == [key for key in ANSWER_TYPES if key != "memory_layers"]
        assert atlas["session_id"] is None

    def test_second_request_reuses(self, server: Server) -> None:
        body = {"prompt": "A prompt that no other test sends, said twice.", "n_predict": 1, "id_slot": 0}
        complete(server, "/completion", prompt="Something else.", id_slot=0)
        first, second = (complete(server, "/completion", **body, atlas={})["atlas"] for _ in range(2))
        assert first["reused_tokens"] < second["reused_tokens"] == second["prompt_tokens"] - 1
        assert second["cache_hit"] is True

    def test_usage_is_in_the_same_chunk(self, server: Server) -> None:
        events = complete(
            server, "/v1/chat/completions", stream=True, stream_options={"include_usage": True}, atlas=REQUEST
        )
        assert events[-1]["choices"] == []
        assert events[-1]["usage"]["prompt_tokens"] == only_atlas(events)["prompt_tokens"]
        assert only_atlas(events) is events[-1]["atlas"]

    @pytest.mark.parametrize("stream", [False, True])
    def test_survives_response_fields(self, server: Server, stream: bool) -> None:
        answer = complete(server, "/completion", response_fields=["content"], stream=stream, atlas={})
        last = answer[-1] if stream else answer
        assert list(last) == ["content", "atlas"]
        assert only_atlas(answer) is last["atlas"]

    def test_is_found_with_a_conversation_id(self, server: Server) -> None:
        body = {**BODIES["/v1/chat/completions"], "stream": True, "atlas": REQUEST}
        response = server.post("/v1/chat/completions", body, headers={"X-Conversation-Id": "conversation-1"})
        assert only_atlas(stream_events(response.text))["session_id"] == REQUEST["session_id"]


class TestSeveralSequences:
    """One request, one `atlas` object, usage added up."""

    prompts = ("One prompt.", "Another prompt, which is longer.", "A third.")

    @pytest.mark.parametrize("path", ["/completion", "/v1/completions"])
    def test_prompts_in_a_stream(self, server: Server, path: str) -> None:
        events = complete(server, path, prompt=self.prompts, stream=True, atlas={})
        atlas = only_atlas(events)
        assert len(list(found(events, "timings"))) == 3
        assert (atlas["reused_tokens"], atlas["prompt_tokens"]) == timed_prompts(events)
        assert events[-1]["atlas"] is atlas

    def test_prompts_in_a_document(self, server: Server) -> None:
        answers = complete(server, "/completion", prompt=self.prompts, atlas={})
        atlas = only_atlas(answers)
        assert len(answers) == 3
        assert (atlas["reused_tokens"], atlas["prompt_tokens"]) == timed_prompts(answers)
        assert answers[-1]["atlas"] is atlas

    def test_prompts_in_one_openai_document(self, server: Server) -> None:
        alone = [
            complete(server, "/v1/completions", prompt=prompt, atlas={})["atlas"]["prompt_tokens"]
            for prompt in self.prompts
        ]
        answer = complete(server, "/v1/completions", prompt=self.prompts, atlas={})
        assert len(answer["choices"]) == 3
        assert only_atlas(answer)["prompt_tokens"] == sum(alone)
        assert answer["atlas"]

    @pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
    @pytest.mark.parametrize("stream", [False, True])
    def test_choices(self, server: Server, path: str, stream: bool) -> None:
        alone = complete(server, path, atlas={})["atlas"]["prompt_tokens"]
        answer = complete(server, path, n=2, stream=stream, atlas={})
        assert only_atlas(answer)["prompt_tokens"] == 2 * alone
        assert "atlas" in (answer[-1] if stream else answer)


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
        '"server" is not supported by this version; send the whole conversation and leave the field out',
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
        "content",
        [
            b"",
            b"{",
            b'{"atlas": {"session_id": }}',
            b'{"atlas": {"session_id": "\xff"}}',
            b'{"atlas": {"session_id": "\\ud800"}}',
            b'{"atlas": {"memory_layers": 1e999}}',
            b'{"atlas": NaN}',
            b"[]",
            b'["atlas"]',
            b'"atlas"',
            b"null",
            b'{"ATLAS": {}, "prompt": {}}',
        ],
    )
    @pytest.mark.parametrize("path", ["/completion", "/v1/chat/completions"])
    def test_errors_are_stock(self, server: Server, stock: Server, path: str, content: bytes) -> None:
        answer, expected = (each.client.post(path, content=content) for each in (server, stock))
        assert (answer.status_code, answer.text) == (expected.status_code, expected.text)

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
