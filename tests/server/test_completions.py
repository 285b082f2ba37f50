"""The `atlas` object on the completion routes: what is answered."""

from hashlib import sha256
from typing import Any

import pytest

from tests.server.completions import BODIES, REQUEST, ROUTES, complete, found, only_atlas
from tests.server.harness import Server, stream_events

ANSWER_TYPES = {
    "session_id": str,
    "memory_layers": int,
    "cache_hit": bool,
    "reused_tokens": int,
    "prompt_tokens": int,
    "layer": int,
    "restore_ms": float,
    "layers_used": list,
    "overhead_ms": float,
    "degraded": bool,
    "reason": str,
}


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

    def test_a_hit_is_not_beside_no_match(self, server: Server) -> None:
        """A slot that shares a few tokens with the prompt is a hit, though no layer has them."""
        complete(server, "/completion", prompt="Two words and the end.", n_predict=1, id_slot=0)
        longer = {"prompt": "Two words that go on" + " and on" * 20, "n_predict": 1, "id_slot": 0}
        shared = complete(server, "/completion", **longer, atlas={})["atlas"]
        assert 0 < shared["reused_tokens"] < 16
        assert (shared["cache_hit"], shared["reason"], shared["layer"]) == (True, "slot_only", 0)

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

    def test_a_conversation_id_is_a_session_id(self, server: Server) -> None:
        body = {**BODIES["/v1/chat/completions"], "atlas": {}}
        for name, session in (
            ("conversation-1", "conversation-1"),
            ("not an id", f"sha256:{sha256(b'not an id').hexdigest()}"),
            ("x" * 200, f"sha256:{sha256(b'x' * 200).hexdigest()}"),
            ("", None),
        ):
            response = server.post("/v1/chat/completions", body, headers={"X-Conversation-Id": name})
            assert response.json()["atlas"]["session_id"] == session


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
