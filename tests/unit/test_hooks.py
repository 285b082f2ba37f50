"""Hooks in pluggy's order and wrappers, what becomes of those that fail, and what plugins cannot reach."""

import logging
import re
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from atlas_plugin import PluginInfo, Response
from atlas_plugin.host.host import ServerCall
from atlas_plugin.testing import Application, FakeHost

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]
StartWith = Callable[..., Application]

SAYS = """
@hookimpl({options})
def admit(layer, touch):
    touch.append("{name}")
    return {answer}
"""


@pytest.fixture
def start_with(tmp_path: Path, start: Start) -> StartWith:
    """start_with(a=source, b=source, …): an application with plugins of these names, loaded in this order."""

    def started(host: FakeHost | None = None, **sources: str) -> Application:
        for name, source in sources.items():
            text = "from atlas_plugin import hookimpl\n" + textwrap.dedent(source)
            (tmp_path / f"{name}.py").write_text(text)
        host = host or FakeHost()
        [entry] = [entry for entry in host.entries if entry["name"] == "plugins"]
        entry["value"] = [str(tmp_path / f"{name}.py") for name in sources]
        return start(host)

    return started


def says(name: str, answer: str = "None", options: str = "") -> str:
    return SAYS.format(name=name, answer=answer, options=options)


def ask(application: Application) -> tuple[Any, list[str]]:
    """What `admit` is answered with, and who was asked, in order."""
    asked: list[str] = []
    return application.plugins.hooks.ask.admit(layer=1, touch=asked), asked


def info(application: Application, name: str) -> PluginInfo:
    [found] = (one for one in application.plugins.infos() if one.name == name)
    return found


def example(word: str) -> str:
    """The example in docs/plugins.md that has the word."""
    page = (Path(__file__).parents[2] / "docs/plugins.md").read_text(encoding="utf-8")
    [found] = (code for code in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if word in code)
    return str(found)


class TestOrder:
    def test_load_order_and_the_first_answer(self, start_with: StartWith) -> None:
        application = start_with(b=says("b"), a=says("a", "False"), c=says("c", "True"))
        assert ask(application) == (False, ["b", "a"])

    def test_first_and_last(self, start_with: StartWith) -> None:
        application = start_with(
            a=says("a", options="trylast=True"), b=says("b"), c=says("c", options="tryfirst=True")
        )
        assert ask(application) == (None, ["c", "b", "a"])

    def test_another_name_for_the_function(self, start_with: StartWith) -> None:
        source = says("a", "True", "specname='admit'").replace("def admit", "def mine")
        application = start_with(a=source)
        assert ask(application) == (True, ["a"])
        assert info(application, "a").hooks == ("admit",)

    @pytest.mark.parametrize("hook", ["startup", "register_routes", "shutdown"])
    @pytest.mark.parametrize("option", ["tryfirst", "trylast", "wrapper"])
    def test_hooks_of_one_plugin_have_no_order(self, start_with: StartWith, hook: str, option: str) -> None:
        application = start_with(a=f"@hookimpl({option}=True)\ndef {hook}(): yield")
        error = f"hook '{hook}': {option} is not supported; plugins start in load order, each by itself"
        assert info(application, "a").error == error

    def test_old_wrappers_are_refused(self, start_with: StartWith) -> None:
        application = start_with(a="@hookimpl(hookwrapper=True)\ndef admit(): yield")
        assert info(application, "a").error == "hook 'admit': hookwrapper is not supported; use wrapper"


class TestWrappers:
    def test_one_stands_around_all(self, start_with: StartWith) -> None:
        wrapper = """
            @hookimpl(wrapper=True)
            def admit(touch):
                touch.append("before")
                answer = yield
                touch.append("after")
                return not answer
        """
        application = start_with(a=says("a", "True"), b=wrapper)
        assert ask(application) == (False, ["before", "a", "after"])

    def test_the_example_in_the_documentation(self, start_with: StartWith) -> None:
        application = start_with(a=says("a", "False"), b=example("wrapper=True"))
        admit = application.plugins.hooks.ask.admit
        assert [admit(layer=layer, touch=[]) for layer in (1, 2)] == [False, None]

    def test_a_list_of_answers(self, start_with: StartWith) -> None:
        reports = """
            from atlas_plugin import StatusReport

            @hookimpl(wrapper=True)
            def report_status():
                return [*(yield), StatusReport(problems=["mine"])]
        """
        assert [one.problems for one in start_with(a=reports).plugins.reports()][-1] == ["mine"]

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            ("1 / 0; yield", "ZeroDivisionError: division by zero"),
            ("yield; 1 / 0", "ZeroDivisionError: division by zero"),
            ("yield; return 7", "TypeError: admit returned int, not bool or None"),
            ("yield; yield", "RuntimeError: the wrapper yields a second time"),
            ("if False: yield", "StopIteration"),
        ],
    )
    def test_one_that_fails_is_not_there(
        self, start_with: StartWith, body: str, error: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        bad = f"@hookimpl(wrapper=True)\ndef admit():\n    {body}"
        good = "@hookimpl(wrapper=True)\ndef admit(): return not (yield)"
        application = start_with(a=says("a", "True"), b=bad, c=good)
        with caplog.at_level(logging.ERROR):
            assert [ask(application) for _ in range(3)] == [(False, ["a"])] * 3
        assert info(application, "b").hook_failures == {"admit": 3}
        assert application.plugins.failing == [f"plugin 'b' fails in admit: {error}"]
        assert caplog.text.count("plugin 'b' failed in admit") == 1
        counted = {one.plugin: one for one in application.plugins.hooks.calls() if one.hook == "admit"}
        assert {name: (one.calls, one.errors) for name, one in counted.items()} == {
            "a": (3, 0),
            "b": (3, 3),
            "c": (3, 0),
        }
        assert all(one.seconds > 0 for one in counted.values())


def test_one_that_fails_keeps_nobody_from_hearing(start_with: StartWith) -> None:
    heard = "heard = []\n@hookimpl\ndef reload(changed): heard.append(changed)\n"
    heard += "@hookimpl\ndef report_status():\n    from atlas_plugin import StatusReport\n"
    heard += "    return StatusReport({'heard': [dict(one) for one in heard]})"
    application = start_with(a="@hookimpl\ndef reload(): 1 / 0", b=heard)
    application.plugins.hooks.ask.reload(changed={"max_sessions": 3})
    assert {"heard": [{"max_sessions": 3}]} in [one.data for one in application.plugins.reports()]
    assert info(application, "a").hook_failures == {"reload": 1}


class TestMetrics:
    def scrape(self, application: Application, call: Call) -> dict[str, list[tuple[dict[str, str], float]]]:
        text = call(application, "GET", "/v1/atlas/metrics/prometheus").body.decode()
        families = text_string_to_metric_families(text)
        return {one.name: [(sample.labels, sample.value) for sample in one.samples] for one in families}

    def test_a_plugin_adds_a_family(self, start_with: StartWith, call: Call) -> None:
        source = """
            from atlas_plugin.metrics import Family, Sample

            @hookimpl
            def report_metrics():
                return (
                    Family("votes_total", "counter", "Votes.", [Sample({"vote": "up"}, 3)]),
                    Family("atlas_plugins", "gauge", "Not mine.", [Sample(value=99)]),
                )
        """
        found = self.scrape(start_with(a=source, b=source), call)
        assert found["votes"] == [({"vote": "up"}, 3.0)]
        assert 99.0 not in [value for _, value in found["atlas_plugins"]]

    def test_the_example_in_the_documentation(self, start_with: StartWith, call: Call) -> None:
        found = self.scrape(start_with(a=example("report_metrics")), call)
        assert found["votes"] == [({"vote": "up"}, 0.0), ({"vote": "down"}, 0.0)]

    @pytest.mark.parametrize(
        ("family", "error"),
        [
            ("7", "TypeError: Value after * must be an iterable"),
            ("['votes']", "ValidationError: Expected `object`, got `str`"),
            ("[Family('no name', 'gauge', '', [])]", "ValueError: 'no name' or one of its labels is no name"),
            ("[Family('a', 'gauge', '', [Sample({'__x': ''})])]", "ValueError: 'a' or one of its labels"),
            (
                "[Family('a', 'histogram', '', [Sample()])]",
                "ValueError: the buckets of a do not go up to None",
            ),
            ("[Family('a', 'gauge', '\\ud800', [])]", "UnicodeEncodeError: 'utf-8'"),
            ("[Family('votes', 'counter', '', [])]", "ValueError: votes is a counter and does not end"),
            ("[Family('a', 'gauge', '', [Sample(value='x')])]", "ValidationError: Expected `float | null`"),
            (
                "[Family('a', 'gauge', '', [Sample({'b': ''}), Sample()])]",
                "ValueError: the samples of a have",
            ),
        ],
    )
    def test_what_prometheus_cannot_read(
        self, start_with: StartWith, call: Call, family: str, error: str
    ) -> None:
        source = "from atlas_plugin.metrics import Family, Sample\n"
        application = start_with(a=f"{source}@hookimpl\ndef report_metrics(): return {family}")
        assert "atlas_plugins" in self.scrape(application, call)
        [problem] = application.plugins.failing
        assert error in problem


class TestRegisteredMetrics:
    def start(self, start_with: StartWith, body: str, **others: str) -> Application:
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        source = f"made = {{}}\n@hookimpl\ndef register_metrics(metrics):\n{lines}"
        return start_with(a=source, **others)

    def test_counters_gauges_and_histograms_are_exported(self, start_with: StartWith, call: Call) -> None:
        application = self.start(
            start_with,
            "votes = metrics.counter('votes_total', 'Votes.', labels=('vote',))\n"
            "votes.labels(vote='up').inc()\nvotes.labels('down').inc(2)\n"
            "metrics.gauge('heat', 'Degrees.').set(-3.5)\n"
            "size = metrics.histogram('size_bytes', 'Sizes.', labels=['of'], buckets=(10, 20))\n"
            "for number in (1, 15, 40): size.labels(of='a').observe(number)\nsize.labels(of='b').observe(11)",
        )
        text = call(application, "GET", "/v1/atlas/metrics/prometheus").body.decode()
        lines = text.splitlines()
        for line in (
            "# HELP votes_total Votes.",
            "# TYPE votes_total counter",
            'votes_total{vote="up"} 1.0',
            'votes_total{vote="down"} 2.0',
            "heat -3.5",
            'size_bytes_bucket{le="10.0",of="a"} 1.0',
            'size_bytes_bucket{le="20.0",of="a"} 2.0',
            'size_bytes_bucket{le="+Inf",of="a"} 3.0',
            'size_bytes_sum{of="a"} 56.0',
            'size_bytes_count{of="b"} 1.0',
        ):
            assert line in lines, text
        assert "_created" not in text
        assert application.metric("votes_total") == 3
        assert application.metric("votes_total", vote="down") == 2
        assert application.metric("size_bytes", of="a") == 3

    def test_they_count_from_many_threads(self, start_with: StartWith) -> None:
        application = self.start(start_with, "made['a'] = metrics.counter('a_total', '', labels=('b',))")
        (plugin,) = (one.module for one in application.plugins._set.plugins if one.info.name == "a")

        def count() -> None:
            for _ in range(1000):
                plugin.made["a"].labels(b="c").inc()  # type: ignore[attr-defined]

        threads = [threading.Thread(target=count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert application.metric("a_total", b="c") == 8000

    @pytest.mark.parametrize(
        ("call_of", "error"),
        [
            ("counter('votes', '')", "ValueError: votes is a counter and does not end in _total"),
            ("gauge('no name', '')", "ValueError: 'no name' or one of its labels is no name"),
            ("gauge('a', '', labels=('__b',))", "ValueError: 'a' or one of its labels is no name"),
            ("gauge('a', '', labels='up')", "ValueError: a: labels is a list of names, not a text"),
            ("gauge('atlas_plugins', '')", "ValueError: atlas_plugins: names that begin with atlas_ or"),
            ("gauge('llamacpp:x', '')", "ValueError: llamacpp:x: names that begin with"),
            ("histogram('h', '', buckets=(2, 1))", "ValueError: Buckets not in sorted order"),
            ("gauge('a', ''); metrics.gauge('a', '')", "ValueError: a was made already"),
            ("gauge('votes', '')", "plugin 'b' has a metric votes already"),
        ],
    )
    def test_names_that_cannot_be(self, start_with: StartWith, call_of: str, error: str) -> None:
        votes = "@hookimpl(tryfirst=False)\ndef register_metrics(metrics): metrics.gauge('votes', '')"
        source = f"@hookimpl\ndef register_metrics(metrics): metrics.{call_of}"
        application = start_with(b=votes, c=source)
        assert error in (info(application, "c").error or "")
        assert info(application, "c").state == "failed"
        assert info(application, "b").state == "active"

    def test_nothing_is_made_later(self, start_with: StartWith) -> None:
        application = self.start(start_with, "made['metrics'] = metrics")
        (plugin,) = (one.module for one in application.plugins._set.plugins if one.info.name == "a")
        with pytest.raises(RuntimeError, match="late: metrics are made in register_metrics only"):
            plugin.made["metrics"].gauge("late", "")  # type: ignore[attr-defined]

    def test_one_that_cannot_be_read_is_left_out(self, start_with: StartWith, call: Call) -> None:
        application = self.start(
            start_with,
            "metrics.gauge('bad', '').set_function(lambda: 1 / 0)\nmetrics.gauge('good', '').set(1)",
        )
        for _ in range(2):
            text = call(application, "GET", "/v1/atlas/metrics/prometheus").body.decode()
            assert "\ngood 1.0\n" in text
            assert "\nbad " not in text
        host = application._host
        assert isinstance(host, FakeHost)
        assert host.log_text.count("the metric bad cannot be read") == 1


ATTEMPTS = {
    "calls": "plugins.calls[{number}] = lambda argument: {{'messages': ['stolen']}}",
    "services": "plugins.services.calls.answer({number}, lambda argument: {{'messages': ['stolen']}})",
    "manager": "plugins.hooks.register(object(), 'memory')",
    "router": "plugins.router._routes.clear()",
    "families": "plugins.families.clear()",
    "whole": "plugins._manager._whole",
    "host": "host.conversations()",
    "edit": "host.edit_session('forget', 'a')",
    "settings": "host.change_settings({{'max_sessions': 1}})",
}


class TestPrivateDoors:
    @pytest.mark.parametrize("what", [ServerCall.HISTORY, ServerCall.RECORD, ServerCall.SYNC])
    @pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
    def test_a_plugin_answers_no_question_of_the_server(
        self, start_with: StartWith, tmp_path: Path, attempt: str, what: ServerCall
    ) -> None:
        host = FakeHost(memory_save_path=str(tmp_path / "memory"))
        thief = f"@hookimpl\ndef startup(host, plugins): {attempt.format(number=int(what))}"
        application = start_with(host, a=thief)
        assert "AttributeError" in (info(application, "a").error or "")
        said = {"session_id": "s", "messages": [{"role": "user", "content": "hello"}]}
        answers = {
            ServerCall.RECORD: ({"degraded": None}, said),
            ServerCall.HISTORY: (
                {"messages": said["messages"], "degraded": None, "answers": []},
                {"session_id": "s"},
            ),
            ServerCall.SYNC: ({}, {}),
        }
        for call, (answer, argument) in answers.items():
            assert msgspec.json.decode(application.call(call, msgspec.json.encode(argument))) == answer

    def test_no_hook_answers_them(self, start_with: StartWith) -> None:
        application = start_with(a="@hookimpl\ndef answer(what, argument): return {}")
        assert (info(application, "a").error or "").startswith("there is no hook 'answer'")

    def test_what_is_public_is_there(self, start_with: StartWith) -> None:
        source = """
            @hookimpl
            def startup(host, plugins):
                host.status(), host.settings(), host.sessions(ids=["a"]), host.metrics(), host.requests()
                plugins.infos(), plugins.failed, plugins.failing, plugins.problems(plugins.reports())
        """
        assert info(start_with(a=source), "a").error is None
