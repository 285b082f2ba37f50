"""Calls of hooks on the path of requests, over the functions of atlas-abi.h."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atlas_plugin import facts
from atlas_plugin.host.hook_server import HookCall
from atlas_plugin.testing import FakeHost

from .host import Server

HEAD = {
    "route": "/v1/chat/completions",
    "request_id": "r1",
    "tenant": "",
    "is_admin": True,
    "session_id": "ada",
    "is_streamed": False,
    "headers": {"X-One": "1"},
}
PLUGIN = """
from atlas_plugin import Modify, Reject, Respond, Response, hookimpl

@hookimpl(deadline_ms=70, fails="closed")
def on_request(request, body):
    request.state["seen"] = body["n"]
    if body["n"] == 1:
        return Modify({**body, "user": request.session_id, "one": request.headers["x-one"]})
    if body["n"] == 2:
        return Reject(451, "no")
    if body["n"] == 3:
        return Respond(Response(201, {"mine": True}, headers={"X-Mine": "yes"}))
    if body["n"] == 4:
        return "nonsense"
    if body["n"] == 5:
        raise KeyError("five")

@hookimpl
def on_response(request, answer):
    return Modify({"seen": request.state.get("seen")})

@hookimpl
def on_finished(request):
    pass
"""


@pytest.fixture
def server(tmp_path: Path) -> Any:
    plugin = tmp_path / "one.py"
    plugin.write_text(PLUGIN)
    server = Server(FakeHost(plugins=[str(plugin)], hook_deadline_ms=40))
    server.start()
    yield server
    server.calls.put(None)
    server.stop()
    while server.sinks_leaked:  # the worker may be behind its last step
        time.sleep(0.01)


def ask(server: Server, hook: int, body: Any, number: int = 1, request: int = 1) -> tuple[int, Any]:
    """The step that answers the call; BEGIN was before it."""
    server.calls.put(HookCall(number, 1, request, hook, json.dumps(HEAD).encode(), json.dumps(body).encode()))
    assert server.steps.get() == (facts.STEP_BEGIN, None)
    return server.steps.get()


def test_what_there_is_gets_to_the_server(server: Server) -> None:
    told = ("hook", "deadline_ms", "fails_closed", "reads_body")
    assert [tuple(row[name] for name in told) for row in server.fake.hooks] == [
        (facts.HOOK_REQUEST, 70, True, True),
        (facts.HOOK_RESPONSE, 40, False, True),
        (facts.HOOK_FINISHED, 40, False, False),
    ]


def test_who_computes_lets_others_compute(server: Server) -> None:
    """A spinning hook keeps the interpreter lock for this long each time."""
    assert sys.getswitchinterval() <= 0.0005


def test_verdicts(server: Server) -> None:
    assert ask(server, facts.HOOK_REQUEST, {"n": 0}) == (facts.STEP_PASS, None)
    step, sink = ask(server, facts.HOOK_REQUEST, {"n": 1})
    assert step == facts.STEP_MODIFY
    assert msgspec.json.decode(sink.body) == {"n": 1, "user": "ada", "one": "1"}
    step, sink = ask(server, facts.HOOK_REQUEST, {"n": 2})
    assert (step, sink.status, sink.body) == (facts.STEP_REJECT, 451, b"no")
    step, sink = ask(server, facts.HOOK_REQUEST, {"n": 3})
    assert (step, sink.status, sink.body) == (facts.STEP_RESPOND, 201, b'{"mine":true}')
    assert sink.headers["X-Mine"] == "yes"


@pytest.mark.parametrize("n", [4, 5])
def test_one_that_fails_says_so(server: Server, n: int) -> None:
    assert ask(server, facts.HOOK_REQUEST, {"n": n}) == (facts.STEP_FAIL, None)
    assert "plugin 'one' failed in on_request" in server.fake.log_text
    assert ask(server, facts.HOOK_REQUEST, {"n": 0}) == (facts.STEP_PASS, None)


def test_state_lasts_as_long_as_the_request(server: Server) -> None:
    ask(server, facts.HOOK_REQUEST, {"n": 6}, request=1)
    ask(server, facts.HOOK_REQUEST, {"n": 7}, request=2)
    assert ask(server, facts.HOOK_RESPONSE, {}, request=1)[1].body == b'{"seen":6}'
    ask(server, facts.HOOK_FINISHED, {}, request=1)
    assert ask(server, facts.HOOK_RESPONSE, {}, request=1)[1].body == b'{"seen":null}'
    assert ask(server, facts.HOOK_RESPONSE, {}, request=2)[1].body == b'{"seen":7}'


def test_one_hook_alone_keeps_no_state(tmp_path: Path) -> None:
    """Its end is told to nobody, who could drop it."""
    plugin = tmp_path / "one.py"
    plugin.write_text(
        "from atlas_plugin import Modify, hookimpl\n@hookimpl\ndef on_request(request):\n"
        "    request.state['n'] = request.state.get('n', 0) + 1\n    return Modify(request.state)\n"
    )
    server = Server(FakeHost(plugins=[str(plugin)]))
    server.start()
    for _ in range(2):
        assert ask(server, facts.HOOK_REQUEST, None)[1].body == b'{"n":1}'
    server.calls.put(None)
    server.stop()


TIER = """
from atlas_plugin import Tier, hookimpl

class Kept(Tier):
    values = {}

    def probe(self, keys):
        return [key in self.values for key in keys]

    def get(self, keys):
        return [self.values.get(key) for key in keys]

    def put(self, key, value, ttl_s):
        self.values[key] = memoryview(value)

    def remove(self, keys):
        raise OSError("gone")

@hookimpl
def register_tiers():
    return [Kept()]
"""


def test_calls_of_tiers_cross_without_a_copy_of_their_own(tmp_path: Path) -> None:
    """Workers of tiers are others than those of hooks; what a plugin keeps is not the server's memory."""
    plugin = tmp_path / "kept.py"
    plugin.write_text(TIER)
    fake = FakeHost(plugins=[str(plugin)])
    server = Server(fake)
    server._is_wanted = True
    server.payload = bytes(range(256))
    server.start()
    table = 1

    def ask(number: int, what: str, payload: int = 0) -> tuple[int, Any]:
        head = json.dumps({"do": what, "ttl_s": 60}).encode()
        call = HookCall(number, table, 0, facts.HOOK_TIER, head, b"a" if what == "put" else b"a\nb", payload)
        server.calls.put(call)
        assert server.steps.get(timeout=60) == (facts.STEP_BEGIN, None)
        return server.steps.get(timeout=60)

    assert fake.tiers[0]["tier"] == "Kept"
    step, sink = ask(1, "put", 256)
    assert (step, bytes(sink.body)) == (facts.STEP_RESPOND, b"")
    step, sink = ask(2, "probe")
    assert (step, bytes(sink.body)) == (facts.STEP_RESPOND, b"10")
    step, sink = ask(3, "get")
    assert (step, bytes(sink.body)) == (facts.STEP_RESPOND, bytes([0, 1, 0, 0, 0, 0, 0, 0]) + server.payload)
    step, sink = ask(4, "remove")
    assert (step, bytes(sink.body)) == (facts.STEP_FAIL, b"OSError: gone")
    # nobody waits for it any more, so that its bytes cannot be read
    step, sink = ask(5, "put", 7)
    assert step == facts.STEP_RESPOND
    server.calls.put(None)
