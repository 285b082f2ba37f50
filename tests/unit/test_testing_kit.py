"""What plugin authors test with, without a server."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from atlas_plugin import (
    Caller,
    CompletionRequest,
    Identity,
    PluginError,
    Reject,
    Response,
    StreamChunk,
)
from atlas_plugin.http import Headers
from atlas_plugin.testing import Application, Asked, FakeHost

REQUEST = CompletionRequest("/v1/chat/completions", "r1")
Make = Callable[..., Application]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """An application with plugins, not started, by the names of their files."""

    def make(**plugins: str) -> Application:
        for name, text in plugins.items():
            (tmp_path / f"{name}.py").write_text("from atlas_plugin import *\n" + text)
        return Application(FakeHost(plugins=[str(tmp_path / f"{name}.py") for name in plugins]))

    return make


APPEND = """
@hookimpl(priority={priority})
def on_request(request, body):
    request.state["seen"] = request.state.get("seen", "") + "{name}"
    return Modify({{"by": body["by"] + ["{name}"]}})
"""


def test_what_one_changed_the_next_one_gets(make: Make) -> None:
    orders = {"a": 5, "b": 0, "c": 0}
    plugins = {name: APPEND.format(name=name, priority=order) for name, order in orders.items()}
    request = CompletionRequest("/v1/chat/completions", "r1")
    with make(**plugins) as application:
        assert application.ask("on_request", request, {"by": []}) == Asked({"by": ["b", "c", "a"]})
    assert request.state == {"seen": "bca"}


def test_who_refuses_is_the_last_to_be_asked(make: Make) -> None:
    no = "@hookimpl(priority=-1)\ndef on_prompt(prompt):\n  if 'x' in prompt: return Reject(451, 'no')\n"
    with make(no=no, more="@hookimpl\ndef on_prompt(prompt): return Modify(prompt + '!')\n") as application:
        assert application.ask("on_prompt", REQUEST, "xyz") == Asked("xyz", rejected=Reject(451, "no"))
        assert application.ask("on_prompt", REQUEST, "abc") == Asked("abc!")


def test_who_responds_is_the_last_to_be_asked(make: Make) -> None:
    here = "@hookimpl\ndef on_request(): return Respond(Response(202, {'by': 'a plugin'}))\n"
    with make(a=here, b=APPEND.format(name="b", priority=1)) as application:
        asked = application.ask("on_request", REQUEST, {"by": []})
    assert asked.value == {"by": []}
    assert isinstance(asked.responded, Response)
    assert (asked.responded.status, asked.responded.body) == (202, b'{"by":"a plugin"}')


def test_one_that_fails_is_passed_over(make: Make) -> None:
    broken = "@hookimpl\ndef on_request(body): body['by'] = 1 / 0\n"
    with make(a=broken, b=APPEND.format(name="b", priority=1)) as application:
        asked = application.ask("on_request", REQUEST, {"by": []})
    assert asked == Asked({"by": ["b"]}, failed=("a: ZeroDivisionError: division by zero",))


def test_one_that_fails_closed_refuses(make: Make) -> None:
    guard = "@hookimpl(fails='closed')\ndef on_request(body): return 'nonsense'\n"
    with make(a=guard, b=APPEND.format(name="b", priority=1)) as application:
        asked = application.ask("on_request", REQUEST, {"by": []})
    assert asked.value == {"by": []}
    assert asked.rejected == Reject(503, "plugin 'a' must allow this request and failed")
    assert [text.partition(" returned")[0] for text in asked.failed] == ["a: TypeError: on_request"]


def test_chunks_and_records(make: Make, tmp_path: Path) -> None:
    text = f"""
import pathlib

@hookimpl
def on_stream_chunk(chunk): return Modify([*chunk.events, {{"last": chunk.is_last}}])

@hookimpl
def on_finished(record): pathlib.Path({str(tmp_path / "told")!r}).write_text(record["route"])
"""
    with make(a=text) as application:
        chunk = application.ask("on_stream_chunk", REQUEST, StreamChunk(({"a": 1},), True))
        assert chunk == Asked(StreamChunk(({"a": 1}, {"last": True}), True))
        assert application.ask("on_finished", REQUEST, {"route": "/x"}) == Asked({"route": "/x"})
        assert application.ask("on_failed", REQUEST, {}) == Asked({})
    assert (tmp_path / "told").read_text() == "/x"


def test_who_a_caller_is(make: Make) -> None:
    text = """
@hookimpl
def authenticate(caller):
    if caller.key == "secret": return Identity("ada", is_admin=True)
    if caller.key == "broken": raise ValueError("no such key")
    if caller.key: return Reject(401, "who are you?")
"""
    with make(a=text) as application:
        asked = {
            key: application.ask("authenticate", Caller(key, "GET", "/v1/models", Headers()))
            for key in ("secret", "other", "broken", "")
        }
    assert asked["secret"] == Asked(None, identity=Identity("ada", is_admin=True))
    assert asked["other"].rejected == Reject(401, "who are you?")
    assert asked["broken"].rejected == Reject(503, "plugin 'a' must allow this request and failed")
    assert asked[""] == Asked(None)


def test_what_cannot_be_asked_is_named(make: Make) -> None:
    with make() as application:
        with pytest.raises(ValueError, match="no request meets a hook 'on_reqest'; it meets on_request, "):
            application.ask("on_reqest", REQUEST, {})
        with pytest.raises(TypeError):
            application.ask("on_request", REQUEST, {"a": {1, 2}})


def test_a_plugin_that_fails_shows_at_once(make: Make) -> None:
    with pytest.raises(PluginError, match="plugin 'a' failed: ZeroDivisionError"), make(a="1 / 0"):
        pass


def test_the_kit_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import atlas_plugin.testing"
    subprocess.run([sys.executable, "-c", code], check=True)
