"""`atlas_plugin.texts`: a plugin reads and replaces what is said on every route, whole or streamed."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.completions import BODIES
from tests.server.harness import Server, stream_events, write_plugin
from tests.server.said import SAYING, THINKING, asking, read, read_stream, template_options, told_again

# Makes capitals of all, by words: what is behind the last space waits for the rest of its word.
PLUGIN = """
from atlas_plugin import Modify, hookimpl
from atlas_plugin.texts import StreamTexts, in_answer, in_request, without_details


class Capitals:
    def __init__(self):
        self.held = ""

    def feed(self, text):
        words, space, self.held = (self.held + text).rpartition(" ")
        return (words + space).upper()

    def end(self):
        return self.held.upper()


@hookimpl(deadline_ms=60000)
def on_request(body):
    return Modify(in_request(body, lambda text: text.replace("Ada", "Eva")))


@hookimpl(deadline_ms=60000)
def on_response(answer):
    return Modify(in_answer(without_details(answer), str.upper))


@hookimpl(deadline_ms=60000, batch=BATCH)
def on_stream_chunk(request, chunk):
    texts = request.state.setdefault("capitals", StreamTexts(Capitals))
    return Modify(texts.chunk([without_details(event) for event in chunk.events], chunk.is_last))
"""
SAID = 'one, two three "four"\nfive'
THOUGHT = "is this six seven"
DETAILS: dict[str, dict[str, Any]] = {
    "/completion": {"n_probs": 1, "return_tokens": True},
    "/v1/completions": {"logprobs": 1, "verbose": True},
    "/v1/chat/completions": {"logprobs": True, "top_logprobs": 1, "verbose": True},
    "/v1/responses": {},
}


@pytest.fixture(scope="module", params=[1, 5])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    plugin = write_plugin(directory, PLUGIN.replace("BATCH", str(request.param)))
    with Server(["--atlas-plugin", plugin, *template_options(directory)], directory=directory) as server:
        yield server


def texts_of(route: str, capitals: bool = True) -> list[str]:
    texts = [THOUGHT, SAID] if route in THINKING else [SAID]
    return [text.upper() if capitals else text for text in texts]


def body_of(route: str, **fields: Any) -> dict[str, Any]:
    return asking(route, SAID, THOUGHT if route in THINKING else "", **DETAILS[route], **fields)


@pytest.mark.parametrize("route", SAYING)
class TestEveryRoute:
    def test_an_answer(self, server: Server, route: str) -> None:
        answer = server.post(route, body_of(route))
        assert [text.strip() for text in read(answer.json())] == texts_of(route)
        # No token and no probability says it; the grammar, which is the client's own, does.
        assert "three" not in answer.text.split('"grammar"')[0]

    def test_a_stream(self, server: Server, route: str) -> None:
        answer = server.post(route, body_of(route, stream=True))
        events = stream_events(answer.text)
        assert [text.strip() for text in read_stream(events)] == texts_of(route)
        assert all(text.isupper() for text in told_again(events))
        assert " three" not in answer.text.split('"grammar"')[0]

    def test_a_stream_that_is_cut(self, server: Server, route: str) -> None:
        """What was held back comes, although the text has no end."""
        limits = {"max_tokens": 9, "n_predict": 9, "max_output_tokens": 9}
        whole = read(server.post(route, body_of(route, **limits)).json())
        streamed = read_stream(stream_events(server.post(route, body_of(route, stream=True, **limits)).text))
        assert streamed == whole


def test_messages(server: Server) -> None:
    """No grammar there: the model says what it says."""
    whole = server.post("/v1/messages", {**BODIES["/v1/messages"], "max_tokens": 30, "temperature": 0})
    body = {**BODIES["/v1/messages"], "max_tokens": 30, "temperature": 0, "stream": True}
    events = stream_events(server.post("/v1/messages", body).text)
    assert read_stream(events) == read(whole.json())
    assert all(text.isupper() for text in read_stream(events))
    last_text = max(n for n, event in enumerate(events) if event["type"] == "content_block_delta")
    stops = [n for n, event in enumerate(events) if event["type"] == "content_block_stop"]
    assert last_text < min(stops)


def test_choices_of_a_stream(server: Server) -> None:
    body = body_of("/v1/chat/completions", stream=True, n=2)
    answer = server.post("/v1/chat/completions", body)
    events = stream_events(answer.text)
    assert [text.strip() for text in read_stream(events)] == texts_of("/v1/chat/completions") * 2
    ends = [event["choices"][0]["finish_reason"] for event in events if event["choices"]]
    assert ends.count("stop") == 2


def test_several_prompts(server: Server) -> None:
    answers = server.post("/completion", body_of("/completion", prompt=["one", "two"])).json()
    assert read(answers) == texts_of("/completion") * 2


def test_a_request(server: Server) -> None:
    answer = server.post("/completion", body_of("/completion", prompt="Ada, Ada"))
    assert answer.json()["prompt"] == "<|BOS|>EVA, EVA"
