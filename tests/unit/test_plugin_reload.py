"""Loading plugins from files anew, without a server: what is loaded, kept, shut down, and when."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin import Request, ValidationError
from atlas_plugin.testing import Application, FakeHost

EVENTS: list[str] = []
# A plugin that says what happens to it.
PLUGIN = """
from atlas_plugin import hookimpl
from tests.unit.test_plugin_reload import EVENTS

WORD = "{word}"

@hookimpl
def startup():
    EVENTS.append("start " + WORD)

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/{route}")
    def say(request):
        return WORD

@hookimpl
def on_request():
    return None

@hookimpl
def shutdown():
    EVENTS.append("stop " + WORD)
"""
Write = Callable[..., None]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    EVENTS.clear()
    return tmp_path


@pytest.fixture
def write(directory: Path) -> Write:
    def write(name: str, word: str, *, route: str | None = None, behind: str = "") -> None:
        (directory / f"{name}.py").write_text(PLUGIN.format(word=word, route=route or name) + behind)

    return write


@pytest.fixture
def host(directory: Path) -> FakeHost:
    return FakeHost(plugins_dir=str(directory))


@pytest.fixture
def application(host: FakeHost, write: Write) -> Iterator[Application]:
    write("a", "a1")
    write("b", "b1")
    application = Application(host)
    application.start()
    yield application
    application.stop()


COUNTING = """
@hookimpl
def register_metrics(metrics):
    metrics.counter("words_total", "Words.", labels=("word",)).labels(WORD).inc({count})
"""


def test_metrics_are_those_of_the_plugins_that_serve(application: Application, write: Write) -> None:
    write("a", "a1", behind=COUNTING.format(count=7))
    application.plugins.reload()
    assert application.metric("words_total", word="a1") == 7
    write("b", "b2")
    application.plugins.reload()
    assert application.metric("words_total", word="a1") == 7
    write("a", "a3", behind=COUNTING.format(count=1))
    application.plugins.reload()
    assert application.metric("words_total") == application.metric("words_total", word="a3") == 1
    write("a", "a4")
    application.plugins.reload()
    assert application.metric("words_total") == 0


def said(application: Application, route: str) -> Any:
    answer = application.handle(Request("GET", f"/v1/atlas/x/{route}"))
    return getattr(answer, "body", b"").decode() if answer.status == 200 else answer.status


def wait_for(event: str) -> None:
    while event not in EVENTS:
        threading.Event().wait(0.01)


def test_what_changed_is_loaded_and_the_rest_goes_on(application: Application, write: Write) -> None:
    write("a", "a2")
    write("c", "c1")
    result = application.plugins.reload()
    assert (result.loaded, result.removed) == (("a", "c"), ())
    assert [said(application, name) for name in "abc"] == ["a2", "b1", "c1"]
    wait_for("stop a1")
    assert EVENTS == ["start a1", "start b1", "start a2", "start c1", "stop a1"]


def test_what_is_gone_is_shut_down(application: Application, directory: Path) -> None:
    (directory / "a.py").unlink()
    result = application.plugins.reload()
    assert (result.loaded, result.removed) == ((), ("a",))
    assert [said(application, name) for name in "ab"] == [404, "b1"]
    wait_for("stop a1")
    application.stop()
    assert EVENTS == ["start a1", "start b1", "stop a1", "stop b1"]


def test_nothing_changed(application: Application) -> None:
    result = application.plugins.reload()
    assert (result.loaded, result.removed) == ((), ())
    assert EVENTS == ["start a1", "start b1"]
    assert said(application, "a") == "a1"


@pytest.mark.parametrize(
    ("behind", "problem"),
    [
        ("raise KeyError('broken')", "broken"),
        ("def (", "SyntaxError"),
        ("@hookimpl\ndef on_requests(): pass", "there is no hook 'on_requests'"),
    ],
)
def test_a_set_that_fails_leaves_the_old_one_serving(
    application: Application, host: FakeHost, write: Write, behind: str, problem: str
) -> None:
    write("a", "a2")
    write("b", "b2", behind=behind)
    with pytest.raises(ValidationError) as refused:
        application.plugins.reload()
    assert problem in str(refused.value)
    assert "plugin 'b' failed" in str(refused.value)
    assert [said(application, name) for name in "ab"] == ["a1", "b1"]
    assert EVENTS == ["start a1", "start b1", "start a2", "stop a2"]
    (shown,) = application.plugins.problems([])
    assert "the plugins were not loaded anew" in shown
    write("b", "b3")
    application.plugins.reload()
    assert [said(application, name) for name in "ab"] == ["a2", "b3"]
    assert application.plugins.problems([]) == []


def test_a_new_one_may_not_take_the_route_of_one_that_stays(application: Application, write: Write) -> None:
    write("a", "a2", route="b")
    with pytest.raises(ValidationError) as refused:
        application.plugins.reload()
    assert "/v1/atlas/x/b is taken" in str(refused.value)
    assert [said(application, name) for name in "ab"] == ["a1", "b1"]
    assert "stop b1" not in EVENTS


def test_one_that_failed_before_does_not_hold_up_the_others(application: Application, write: Write) -> None:
    write("z", "z1")
    application.plugins.reload()
    write("z", "z2", behind="raise KeyError")
    with pytest.raises(ValidationError):
        application.plugins.reload()
    assert said(application, "z") == "z1"


def test_the_start_may_have_failed(host: FakeHost, write: Write) -> None:
    write("a", "a1", behind="raise KeyError")
    write("b", "b1")
    application = Application(host)
    application.start()
    write("b", "b2")
    assert application.plugins.reload().loaded == ("b",)
    write("a", "a2")
    assert application.plugins.reload().loaded == ("a",)
    assert not application.plugins.failed
    application.stop()


def test_shutdown_waits_for_requests_that_go_on(
    application: Application, host: FakeHost, write: Write
) -> None:
    host.tables = [1, 2]  # as long as a completion goes on with the first
    write("a", "a2")
    application.plugins.reload()
    assert host.hooks
    with application.plugins.serving():
        pass
    assert "stop a1" not in EVENTS
    host.tables = [2]
    wait_for("stop a1")


def test_the_end_of_the_server_shuts_down_what_still_waits(
    application: Application, host: FakeHost, write: Write
) -> None:
    host.tables = [1, 2]
    write("a", "a2")
    application.plugins.reload()
    application.stop()
    assert sorted(EVENTS) == ["start a1", "start a2", "start b1", "stop a1", "stop a2", "stop b1"]
    host.tables = []


def test_files_are_watched(directory: Path, write: Write) -> None:
    write("a", "a1")
    host = FakeHost(plugins_dir=str(directory), reload_plugins=True)
    application = Application(host)
    application.start()
    write("b", "b1")
    wait_for("start b1")
    while said(application, "b") != "b1":
        threading.Event().wait(0.01)
    application.stop()


def test_counts_go_on(application: Application, write: Write) -> None:
    before = {(one.plugin, one.hook): one.calls for one in application.plugins.hooks.calls()}
    write("a", "a2")
    application.plugins.reload()
    after = {(one.plugin, one.hook): one.calls for one in application.plugins.hooks.calls()}
    assert after["a", "startup"] == before["a", "startup"] + 1
    assert after["b", "startup"] == before["b", "startup"]
