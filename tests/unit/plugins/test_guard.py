"""The ready-made plugin `guard`: which request breaks which rule."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atlas_plugin import CompletionRequest, Reject
from atlas_plugin.errors import PluginError
from atlas_plugin.testing import Application, FakeHost

CHAT = "/v1/chat/completions"

Guarded = Callable[..., Application]


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    applications: list[Application] = []

    def make(*rules: dict[str, Any], **more: Any) -> Application:
        named = [{"name": f"rule{number}", **rule} for number, rule in enumerate(rules)]
        for name, value in {"rules": named, **more}.items():
            monkeypatch.setenv(f"ATLAS_PLUGIN_GUARD_{name.upper()}", json.dumps(value))
        application = Application(FakeHost(plugins=["guard"]))
        application.__enter__()
        applications.append(application)
        return application

    yield make
    for application in applications:
        application.stop()


def rejected(application: Application, body: dict[str, Any], route: str = CHAT) -> Reject | None:
    asked = application.ask("on_request", CompletionRequest(route, "r1", tenant="t1"), body)
    assert not asked.failed
    return asked.rejected


def said(*texts: str, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for text in texts]}


CALL = {"function": {"name": "f", "arguments": '{"q": "bad"}'}}
BROKEN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"deny": "bad"}, said("good", "so bad")),
    ({"deny": "bad"}, {"messages": [{"role": "user", "content": [{"type": "text", "text": "bad"}]}]}),
    ({"deny": r"bad\s+words"}, {"messages": [{"content": [{"text": "bad"}, {"text": "words"}]}]}),
    ({"deny": "bad"}, {"messages": [{"role": "assistant", "tool_calls": [CALL]}]}),
    ({"deny": "bad"}, {"prompt": ["good", "bad"]}),
    ({"deny": "bad"}, {"input": [{"type": "function_call_output", "output": "bad"}]}),
    ({"deny": "bad"}, {"messages": [], "system": [{"type": "text", "text": "bad"}]}),
    ({"deny": "bad"}, {"messages": [], "tools": [{"function": {"description": "bad"}}]}),
    ({"deny": "bad"}, {"input_prefix": "bad", "input_suffix": ""}),
    ({"deny": "bad"}, said("\uff42\uff41\uff44")),
    ({"deny": "bad"}, said("b\u200ba\u00add")),
    ({"deny": "bad"}, {"prompt": [1, 2]}),
    ({"deny": "bad", "roles": ["system"]}, said("bad", role="System ")),
    ({"allow": "[a-z ]+"}, said("good", "Bad")),
    ({"allow": "[a-z ]+"}, {"prompt": "good", "instructions": "Bad"}),
    ({"max_characters": 9}, said("12345", "67890")),
    ({"max_characters": 9, "roles": ["user"]}, said("1234567890")),
    ({"max_characters": 9}, {"prompt": [1, 2]}),
    ({"max_messages": 2}, said("1", "2", "3")),
    ({"max_messages": 2}, {"input": [{"role": "user", "content": "1"}] * 3}),
    ({"max_messages": 0, "roles": ["tool"]}, {"messages": [{"role": "tool", "content": "1"}]}),
    ({"models": ["small"]}, {**said("1"), "model": "large"}),
    ({"routes": ["/v1/completions", "/v1/messages"]}, said("1")),
    ({"fields": ["messages"]}, {**said("1"), "grammar": "x"}),
    ({"denied_fields": ["grammar"]}, {**said("1"), "grammar": "x"}),
    ({"denied_roles": ["system"]}, said("1", role="system")),
    ({"denied_roles": ["system"]}, said("1", role="SYSTEM")),
    ({"denied_roles": ["system"]}, {"messages": [{"role": "system", "content": ""}]}),
    ({"denied_roles": ["system"]}, {**said("1"), "system": "2"}),
    ({"denied_roles": ["system"]}, {"input": "1", "instructions": "2"}),
    ({"denied_roles": ["developer"]}, {"input": [{"role": "developer", "content": "1"}]}),
    ({"denied_roles": ["tool"]}, {"input": [{"type": "function_call_output", "output": "1"}]}),
]
MET: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"deny": "bad"}, said("good")),
    ({"deny": "bad"}, {**said("good"), "user": "bad", "stop": ["bad"]}),
    ({"deny": "bad", "roles": ["system"]}, said("bad")),
    ({"allow": "[a-z ]+"}, said("good")),
    ({"allow": "[a-z]+", "roles": ["user"]}, {**said("good"), "system": "Bad"}),
    ({"max_characters": 10}, said("12345", "67890")),
    ({"max_messages": 2}, {**said("1", "2"), "tools": [{"function": {"description": "3"}}]}),
    ({"models": ["small"]}, {**said("1"), "model": "small"}),
    ({"models": ["small"]}, said("1")),
    ({"routes": ["/chat/completions"]}, said("1")),
    ({"fields": ["messages", "model"]}, said("1")),
    ({"denied_fields": ["grammar"]}, said("1")),
    ({"denied_roles": ["system"]}, {**said("1"), "tools": [{"function": {"description": "2"}}]}),
    ({"denied_roles": ["system"]}, {"messages": "system"}),
]


@pytest.mark.parametrize(("rule", "body"), BROKEN)
def test_broken(guarded: Guarded, rule: dict[str, Any], body: dict[str, Any]) -> None:
    assert rejected(guarded(rule), body) == Reject(400, "the request breaks the rule 'rule0'")


@pytest.mark.parametrize(("rule", "body"), MET)
def test_met(guarded: Guarded, rule: dict[str, Any], body: dict[str, Any]) -> None:
    assert rejected(guarded(rule), body) is None


def counts(application: Application) -> dict[str, float | None]:
    [family] = [one for one in application.plugins.metrics() if one.name == "atlas_plugin_guard_total"]
    return {f"{one.labels['rule']} {one.labels['action']}": one.value for one in family.samples}


def test_the_first_that_rejects_ends_it(guarded: Guarded) -> None:
    application = guarded(
        {"deny": "bad", "action": "log"},
        {"deny": "worse", "message": "No.", "status": 403},
        {"deny": "bad"},
    )
    assert rejected(application, said("bad, worse")) == Reject(403, "No.")
    assert rejected(application, said("worse")) == Reject(403, "No.")
    assert rejected(application, said("bad")) == Reject(400, "the request breaks the rule 'rule2'")
    assert counts(application) == {"rule0 log": 2, "rule1 reject": 2, "rule2 reject": 1}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "guard:" in record.getMessage()]


def test_what_is_logged(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    application = guarded({"deny": "b.*d", "action": "log"})
    assert rejected(application, said("b123d")) is None
    assert logged(caplog) == ["guard: request 'r1' of tenant 't1' breaks the rule rule0 (log)"]


def test_texts_are_logged_where_that_is_wanted(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    application = guarded({"deny": "(?s)b.*"}, log_texts=True)
    rejected(application, said("ab\n" + "x" * 300))
    [line] = logged(caplog)
    assert (
        line
        == f"guard: request 'r1' of tenant 't1' breaks the rule rule0 (reject): {'b' + chr(10) + 'x' * 198!r}"
    )


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ([], "rules"),
        ([{"deny": "("}], r"rules\[0\].deny: missing \)"),
        ([{"deny": "x"}, {"deny": "y", "models": ["z"]}], r"rules\[1\]: a rule has one of"),
        ([{}], r"rules\[0\]: a rule has one of .*; it has none"),
        ([{"models": ["x"], "roles": ["user"]}], r"rules\[0\].roles: they are of no use to models"),
        (
            [{"deny": "x", "name": "a"}, {"deny": "y", "name": "a"}],
            r"rules\[1\].name: there is a rule a already",
        ),
        ([{"deny": "x", "action": "block"}], r"rules\[0\].action"),
        ([{"deny": "x", "status": 200}], r"rules\[0\].status"),
        ([{"denyed": "x"}], "denyed"),
    ],
)
def test_wrong_configuration(guarded: Guarded, rules: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(PluginError, match=why):
        guarded(*rules)
