"""The ready-made plugin `pii` in a real server: on every route, whole and streamed, in and out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.completions import BODIES, ROUTES, complete, found
from tests.server.conftest import StartServer
from tests.server.harness import Server, stream_events, write_plugin
from tests.server.said import SAYING, THINKING, asking, read, read_stream, template_options, told_again

MAIL, PHONE, CARD, IBAN = (
    "ada@example.org",
    "+49 30 1234567",
    "4111 1111 1111 1111",
    "DE89 3704 0044 0532 0130 00",
)
SECRETS = [MAIL, PHONE, CARD, IBAN, "EMP-1234"]
SAID = f"Write to {MAIL} or pay from {IBAN} by {CARD}.\nOr ask EMP-1234"
REDACTED = "Write to [EMAIL] or pay from [IBAN] by [CARD].\nOr ask [STAFF]"
THOUGHT, THOUGHT_REDACTED = f"call {PHONE}", "call [PHONE]"
DETAILS: dict[str, dict[str, Any]] = {
    "/completion": {"n_probs": 1, "return_tokens": True},
    "/v1/completions": {"logprobs": 1, "verbose": True},
    "/v1/chat/completions": {"logprobs": True, "top_logprobs": 1, "verbose": True},
    "/v1/responses": {},
}
CONFIGURATION = """
[plugins.pii]
patterns = [{ name = "staff", regex = "EMP-\\\\d{4}", within = "word" }]
"""
# Says what the model is asked, behind the plugin.
PROBE = """
from atlas_plugin import hookimpl

prompts = []

@hookimpl
def on_prompt(prompt):
    prompts.append(prompt)

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/prompts")
    def told(request):
        return prompts
"""


# Makes the model say it on the route that takes no grammar, in pieces.
SPEAKER = """
from atlas_plugin import Modify, hookimpl

SAID = SAYS

@hookimpl(priority=-10, deadline_ms=60000)
def on_response(answer):
    return Modify({**answer, "content": [{"type": "text", "text": SAID}]})

@hookimpl(priority=-10, deadline_ms=60000)
def on_stream_chunk(request, chunk):
    events = list(chunk.events)
    for event in events:
        if event["event"] == "content_block_delta":
            at = request.state.get("at", 0)
            request.state["at"] = at + 6
            event["data"]["delta"]["text"] = SAID[at : at + 6]
    stops = [number for number, event in enumerate(events) if event["event"] == "content_block_stop"]
    for number in stops:
        rest = {"type": "text_delta", "text": SAID[request.state["at"] :]}
        data = {"type": "content_block_delta", "index": 0, "delta": rest}
        events.insert(number, {"event": "content_block_delta", "data": data})
    return Modify(events)
"""


def options(directory: Path, configuration: str = CONFIGURATION, *more: Path) -> list[str]:
    file = directory / "atlas.toml"
    file.write_text(configuration, encoding="utf-8")
    plugins = ",".join(["pii", *map(str, more)])
    return ["--atlas-plugin", plugins, "--atlas-config", str(file)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    probe = write_plugin(directory, PROBE)
    memory = ["--atlas-memory-path", str(directory / "memory")]
    arguments = [*options(directory, CONFIGURATION, probe), *template_options(directory), *memory]
    with Server(arguments, directory=directory) as server:
        yield server


def body_of(route: str, **fields: Any) -> dict[str, Any]:
    return asking(route, SAID, THOUGHT if route in THINKING else "", **DETAILS[route], **fields)


def texts_of(route: str) -> list[str]:
    return [THOUGHT_REDACTED, REDACTED] if route in THINKING else [REDACTED]


def told(answer: str) -> str:
    """What of an answer the client did not say itself: a grammar is echoed."""
    return answer.replace(json.dumps(asking("/completion", SAID)["grammar"])[1:-1], "").replace(
        json.dumps(asking("/completion", SAID, THOUGHT)["grammar"])[1:-1], ""
    )


@pytest.mark.parametrize("route", SAYING)
class TestAnswers:
    def test_whole(self, server: Server, route: str) -> None:
        answer = server.post(route, body_of(route))
        assert [text.strip() for text in read(answer.json())] == texts_of(route)
        assert not [secret for secret in SECRETS if secret in told(answer.text)]

    def test_streamed(self, server: Server, route: str) -> None:
        answer = server.post(route, body_of(route, stream=True))
        events = stream_events(answer.text)
        assert [text.strip() for text in read_stream(events)] == texts_of(route)
        assert not [secret for secret in SECRETS if secret in told(answer.text)]
        assert {text.strip() for text in told_again(events)} <= set(texts_of(route))

    def test_no_token_says_it(self, server: Server, route: str) -> None:
        """A stream tells its words by ids and probabilities, too."""
        for stream in (False, True):
            text = server.post(route, body_of(route, stream=stream)).text
            documents = stream_events(text) if stream else [json.loads(text)]
            assert not any(found(documents, "token"))
            assert all(not ids for ids in found(documents, "tokens"))
            assert all(not rows for rows in found(documents, "completion_probabilities"))


def test_choices(server: Server) -> None:
    body = body_of("/v1/chat/completions", stream=True, n=2)
    events = stream_events(server.post("/v1/chat/completions", body).text)
    assert [text.strip() for text in read_stream(events)] == texts_of("/v1/chat/completions") * 2


@pytest.mark.parametrize("route", ROUTES)
def test_requests(server: Server, route: str) -> None:
    before = len(server.get("/v1/atlas/x/prompts").json())
    body = json.loads(json.dumps(BODIES[route]).replace("My name is Ada.", f"I am {MAIL}, {PHONE}."))
    assert server.post(route, body).status_code == 200
    [prompt] = server.get("/v1/atlas/x/prompts").json()[before:]
    assert "I am [EMAIL], [PHONE]. What is my name?" in prompt


def test_messages(start_server: StartServer, tmp_path: Path) -> None:
    speaker = write_plugin(tmp_path, SPEAKER.replace("SAYS", repr(SAID)), "speaker")
    server = start_server(options(tmp_path, CONFIGURATION, speaker))
    whole, events = (complete(server, "/v1/messages", stream=stream) for stream in (False, True))
    assert read(whole) == read_stream(events) == [REDACTED]
    assert [event["type"] for event in events][-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_token_ids(server: Server) -> None:
    answer = server.post("/completion", {"prompt": [1, 2, 3], "n_predict": 1})
    assert answer.status_code == 400
    assert "token ids" in answer.json()["error"]["message"]


def test_a_stream_that_is_asked_for_again(server: Server) -> None:
    """What the server keeps for a client that comes back is redacted."""
    route = "/v1/chat/completions"
    server.post(route, body_of(route, stream=True), headers={"X-Conversation-Id": "again"})
    again = server.get("/v1/stream", params={"conv_id": "again"})
    assert "[EMAIL]" in again.text
    assert MAIL not in told(again.text)


def test_the_record_of_a_session(server: Server) -> None:
    """It has the request as the model got it, and, as the cookbook says, the answer as the model gave it."""
    body = {**asking("/v1/chat/completions", SAID), "messages": [{"role": "user", "content": f"I am {MAIL}"}]}
    answer = server.post("/v1/chat/completions", {**body, "atlas": {"session_id": "s", "history": "server"}})
    assert answer.status_code == 200, answer.text
    kept = server.post("/v1/atlas/memory/load", {"context_id": "s"}).json()["data"]["session"]
    asked, said = kept["conversation_history"]
    assert asked["content"] == "I am [EMAIL]"
    assert said["content"] == SAID


def test_metrics(server: Server) -> None:
    server.post("/completion", {"prompt": MAIL, "n_predict": 1})
    metrics = server.get("/v1/atlas/metrics/prometheus").text
    assert 'atlas_plugin_pii_total{kind="email",where="request"}' in metrics


def test_an_audit_log_has_what_is_left(start_server: StartServer, tmp_path: Path) -> None:
    """A plugin that keeps texts is asked behind this one."""
    audit = f'[plugins.audit]\npath = "{tmp_path}/audit.jsonl"\nprompts = "text"\nanswers = "text"\n'
    file = tmp_path / "atlas.toml"
    file.write_text(CONFIGURATION + audit, encoding="utf-8")
    server = start_server(["--atlas-plugin", "audit,pii", "--atlas-config", str(file)])
    for stream in (False, True):
        server.post("/completion", asking("/completion", SAID, prompt=MAIL, stream=stream))
    assert server.stop() == 0
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["prompt"], line["answer"]) for line in lines] == [(["[EMAIL]"], [REDACTED])] * 2


def test_wrong_configuration(spawn_server: StartServer, tmp_path: Path) -> None:
    arguments = options(tmp_path, '[plugins.pii]\npatterns = [{ name = "x", regex = "(" }]\n')
    server = spawn_server([*arguments, "--atlas-require-python"])
    assert server.wait() != 0
    assert "patterns[0].regex: missing )" in server.log
