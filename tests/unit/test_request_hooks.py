"""The hooks on the path of requests, without a server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin import CompletionRequest, facts
from atlas_plugin.host.request_hooks import HookTable
from atlas_plugin.host.verdicts import FAIL, PASS
from atlas_plugin.testing import Application, FakeHost

Make = Callable[..., HookTable]
REQUEST = CompletionRequest("/v1/completions", "r1")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A table of plugins, by the names of their files."""

    def make(**plugins: str) -> HookTable:
        paths = []
        for name, text in plugins.items():
            path = tmp_path / f"{name}.py"
            path.write_text("from atlas_plugin import *\n" + text)
            paths.append(str(path))
        host = FakeHost(plugins=paths)
        application = Application(host)
        application.start()
        assert not application.plugins.failed, application.plugins.failed
        return HookTable(application.plugins.hooks, 1, 50)

    return make


def run(table: HookTable, hook: str, value: Any, position: int = 0) -> Any:
    return table.run(hook, position, REQUEST, json.dumps(value).encode())


def test_order_is_by_priority_then_name(make: Make) -> None:
    text = "@hookimpl({})\ndef on_request(): return Reject(400, '{}')\n"
    table = make(c=text.format("priority=-1", "c"), b=text.format("", "b"), a=text.format("priority=5", "a"))
    assert [row["plugin"] for row in table.rows()] == ["c", "b", "a"]
    assert [run(table, "on_request", {}, at).response.body for at in range(3)] == [b"c", b"b", b"a"]


@pytest.mark.parametrize(
    ("hook", "argument", "verdict", "value"),
    [
        ("on_request", "body", "Modify([1])", {}),
        ("on_prompt", "prompt", "Modify(7)", "text"),
        ("on_response", "answer", "Modify([])", {}),
        ("on_response", "answer", "Respond(Response())", {}),
        ("on_stream_chunk", "chunk", "Modify('text')", {"events": [], "is_last": False}),
        ("on_stream_chunk", "chunk", "Modify([1])", {"events": [], "is_last": False}),
        ("on_request", "body", "Respond('text')", {}),
        ("on_request", "body", "Modify({1: 2})", {}),
        ("on_request", "body", "Modify({'a': {1}})", {}),
        ("on_request", "body", "Reject(200, 'fine')", {}),
        ("on_request", "body", "Reject(403, None)", {}),
        ("on_request", "body", "True", {}),
        ("on_finished", "record", "Modify({})", {}),
    ],
)
def test_what_may_not_be_answered_is_a_failure(
    make: Make, hook: str, argument: str, verdict: str, value: Any
) -> None:
    table = make(one=f"@hookimpl\ndef {hook}({argument}): return {verdict}\n")
    assert run(table, hook, value) == FAIL


def test_what_is_not_asked_for_is_not_made(make: Make) -> None:
    table = make(one="@hookimpl\ndef on_request(request): return Reject(403, request.route)\n")
    assert table.run("on_request", 0, REQUEST, b"this is no JSON").response.body == b"/v1/completions"  # type: ignore[union-attr]


def test_each_gets_a_copy_of_its_own(make: Make) -> None:
    text = "@hookimpl\ndef on_request(body):\n  assert body == {'a': 1}\n  body['a'] = 2\n"
    table = make(a=text, b=text)
    assert run(table, "on_request", {"a": 1}, 0) == run(table, "on_request", {"a": 1}, 1) == PASS


def test_events_take_the_place_of_a_chunk(make: Make) -> None:
    table = make(
        one="@hookimpl\ndef on_stream_chunk(chunk): return Modify([*chunk.events, {'last': chunk.is_last}])\n"
    )
    step = run(table, "on_stream_chunk", {"events": [{"a": 1}], "is_last": True})
    assert json.loads(step.response.body) == {"events": [{"a": 1}, {"last": True}], "is_last": True}
    assert step.number == facts.STEP_MODIFY


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("@hookimpl(deadline_ms=0)\ndef on_request(): pass", "deadline_ms must be an int from 1 to 60000"),
        ("@hookimpl(fails='ajar')\ndef on_request(): pass", 'fails must be "open" or "closed"'),
        ("@hookimpl(batch=1000)\ndef on_stream_chunk(): pass", "batch must be an int from 1 to 256"),
        ("@hookimpl(timeout=1)\ndef on_request(): pass", "unexpected keyword argument 'timeout'"),
        ("@hookimpl(wrapper=True)\ndef on_request(): yield", "use priority"),
        ("@hookimpl(tryfirst=True)\ndef on_response(): pass", "use priority"),
        (
            "@hookimpl(priority=1)\ndef report_status(): pass",
            "it takes no options; those that do are on_request",
        ),
        ("@hookimpl\ndef on_request(requests): pass", "requests"),
    ],
)
def test_what_a_plugin_may_not_say(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "one.py"
    path.write_text(f"from atlas_plugin import hookimpl\n{text}\n")
    application = Application(FakeHost(plugins=[str(path)]))
    application.start()
    (failed,) = application.plugins.failed
    assert failed.error is not None
    assert problem in failed.error


def test_a_hook_that_is_off_shows(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text("from atlas_plugin import hookimpl\n@hookimpl(fails='closed')\ndef on_request(): pass\n")
    host = FakeHost(plugins=[str(path)])
    application = Application(host)
    application.start()
    host.tallies = [{"plugin": "one", "hook": "on_request", "timeouts": 5, "is_off": True}]
    (shown,) = application.plugins.infos()[-1].request_hooks
    assert shown == {
        "hook": "on_request",
        "plugin": "one",
        "deadline_ms": 50,
        "fails": "closed",
        "priority": 0,
        "timeouts": 5,
        "is_off": True,
    }
    (problem,) = application.plugins.problems([])
    assert "plugin 'one' is off in on_request" in problem
    assert application.plugins.problems([]) == [problem]
    assert host.enable_hooks("one")
    assert application.plugins.problems([]) == []
