"""Hooks on the path of requests where servers differ: bodies, sleep, a prefix, a router, keys, choices."""

from pathlib import Path
from typing import Any

import pytest

from tests.server.completions import BODIES
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, Server, stream_events, write_plugin
from tests.server.keys import ADA, ADMIN, key_options, with_key

CHAT = "/v1/chat/completions"
BODY = {**BODIES[CHAT], "max_tokens": 1}
# What the hook answers in the model's place: what it was told.
TELL = """
from atlas_plugin import Respond, Response, hookimpl

@hookimpl(deadline_ms=60000)
def on_request(ARGUMENTS):
    return Respond(Response(body=ANSWER))
"""
TELL_OF_REQUEST = TELL.replace("ARGUMENTS", "request").replace(
    "ANSWER", "{name: getattr(request, name) for name in ('route', 'tenant', 'is_admin')}"
)
SIZE = 10_000_000


def options(directory: Path, source: str) -> list[str | Path]:
    return ["--atlas-plugin", write_plugin(directory, source)]


@pytest.mark.parametrize(
    ("arguments", "answer", "told"), [("request", "'seen'", "seen"), ("body", "len(body['user'])", SIZE)]
)
def test_a_large_body(
    start_server: StartServer, tmp_path: Path, arguments: str, answer: str, told: Any
) -> None:
    source = TELL.replace("ARGUMENTS", arguments).replace("ANSWER", f"{{'told': {answer}}}")
    server = start_server(options(tmp_path, source))
    assert server.post(CHAT, {**BODY, "user": "x" * SIZE}).json() == {"told": told}


def test_a_large_body_is_changed(start_server: StartServer, tmp_path: Path) -> None:
    source = """
from atlas_plugin import Modify, hookimpl

@hookimpl(deadline_ms=60000)
def on_request(body):
    return Modify({**body, "messages": [{"role": "user", "content": "Hello"}], "more": body["user"]})

@hookimpl(deadline_ms=60000)
def on_response(answer):
    return Modify({**answer, "more": "y" * SIZE})
""".replace("SIZE", f"{SIZE}")
    server = start_server(options(tmp_path, source))
    answer = server.post(CHAT, {**BODY, "user": "x" * SIZE})
    assert (answer.status_code, len(answer.json()["more"])) == (200, SIZE)


def test_a_server_that_sleeps(start_server: StartServer, tmp_path: Path) -> None:
    """A plugin that answers in the model's place does so before anybody wakes the model."""
    source = """
from atlas_plugin import Respond, Response, hookimpl

@hookimpl(deadline_ms=60000)
def on_request(request):
    return Respond(Response(202)) if request.headers["x-do"] == "respond" else None

@hookimpl(deadline_ms=60000)
def on_response(request, answer):
    request.state["answered"] = True
"""
    server = start_server([*options(tmp_path, source), "--sleep-idle-seconds", "1"])

    def is_asleep() -> bool:
        return bool(server.get("/props").json()["is_sleeping"])

    for what, status in (("respond", 202), ("pass", 200)):
        server.wait_until(is_asleep)
        assert server.post(CHAT, BODY, headers={"X-Do": what}).status_code == status
    assert server.stop() == 0


def test_a_prefix(spawn_server: StartServer, tmp_path: Path) -> None:
    server = spawn_server([*options(tmp_path, TELL_OF_REQUEST), "--api-prefix", "/deep"])
    server.wait_until(lambda: server.answers("/deep/health"))
    assert server.post(f"/deep{CHAT}", BODY).json()["route"] == CHAT


def test_a_routers_child(start_server: StartServer, tmp_path: Path) -> None:
    """The child has the plugin, and asks it; the router, which has it too, does not."""
    source = """
import os
from atlas_plugin import Modify, hookimpl

@hookimpl(deadline_ms=60000)
def on_request(body):
    return Modify({**body, "max_tokens": 2})

@hookimpl(deadline_ms=60000)
def on_response(answer):
    return Modify({**answer, "by": [*answer.get("by", []), os.getpid()]})

@hookimpl(deadline_ms=60000, batch=4)
def on_stream_chunk(chunk):
    return Modify([{**event, "by": [*event.get("by", []), os.getpid()]} for event in chunk.events])
"""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/one.gguf").symlink_to(MODEL)
    router = start_server([*options(tmp_path, source), "--models-dir", tmp_path / "models"], model=None)
    whole = router.post(CHAT, {**BODY, "model": "one"}).json()
    streamed = stream_events(router.post(CHAT, {**BODY, "model": "one", "stream": True}).text)
    assert router.process is not None
    pids = [whole["by"], *(event["by"] for event in streamed)]
    assert all(len(each) == 1 and each != [router.process.pid] for each in pids)
    assert whole["usage"]["completion_tokens"] == 2


def test_keys(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*options(tmp_path, TELL_OF_REQUEST), *key_options(tmp_path)], api_key=ADMIN)
    ada, admin = (with_key(server, key).post(CHAT, BODY).json() for key in (ADA, ADMIN))
    assert (len(ada["tenant"]), ada["is_admin"]) == (16, False)
    assert (admin["tenant"], admin["is_admin"]) == ("", True)
    assert with_key(server, None).post(CHAT, BODY).status_code == 401
    enable = "/v1/atlas/plugins/probe/enable"
    assert [with_key(server, key).post(enable).status_code for key in (ADA, ADMIN)] == [403, 200]


def choices(server: Server, **fields: Any) -> dict[int, str]:
    """What each choice of a streamed chat says."""
    asked = {**BODY, "max_tokens": 24, "ignore_eos": True, "temperature": 0, "n": 2, "stream": True, **fields}
    said = {0: "", 1: ""}
    for event in stream_events(server.post(CHAT, asked).text):
        for choice in event["choices"]:
            said[choice["index"]] += choice["delta"].get("content") or ""
    return said


@pytest.mark.parametrize("batch", [1, 5, 16])
@pytest.mark.parametrize("fields", [{}, {"atlas": {"batch_size": 1}}], ids=["together", "one by one"])
def test_choices_of_a_stream(
    start_server: StartServer, tmp_path: Path, batch: int, fields: dict[str, Any]
) -> None:
    """All events of all choices are seen once, in order, and the last chunk is the last."""
    source = f"""
from atlas_plugin import Modify, hookimpl

ends = []

@hookimpl(deadline_ms=60000, batch={batch})
def on_stream_chunk(request, chunk):
    ends.append(chunk.is_last)
    for event in chunk.events:
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                request.state[choice["index"]] = request.state.get(choice["index"], "") + text
    if chunk.is_last:
        said = [request.state[0], request.state[1], ends]
        return Modify([*chunk.events, {{"choices": [], "said": said}}])

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/ends")
    def told(request):
        return ends
"""
    plain = choices(start_server())
    server = start_server(options(tmp_path, source))
    assert choices(server, **fields) == plain
    ends = server.get("/v1/atlas/x/ends").json()
    assert ends == [False] * (len(ends) - 1) + [True]
    asked = {**BODY, "max_tokens": 24, "ignore_eos": True, "temperature": 0, "n": 2, "stream": True, **fields}
    *_, last = stream_events(server.post(CHAT, asked).text)
    assert last["said"][:2] == [plain[0], plain[1]]
