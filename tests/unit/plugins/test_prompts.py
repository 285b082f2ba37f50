"""Whom the rules of `prompts` are for, and what it refuses at the start."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from atlas_plugin import CompletionRequest
from atlas_plugin.errors import PluginError
from atlas_plugin.testing import Application, FakeHost

RULES: list[dict[str, Any]] = [
    {"names": ["ada"], "models": ["large"], "text": "ada and large"},
    {"names": ["ada", "ben"], "text": "ada or ben"},
    {"tenants": ["0123456789abcdef"], "text": "a tenant"},
    {"text": "all others"},
]


def start(monkeypatch: pytest.MonkeyPatch, rules: Any) -> Application:
    monkeypatch.setenv("ATLAS_PLUGIN_PROMPTS_RULES", msgspec.json.encode(rules).decode())
    return Application(FakeHost(plugins=["prompts"]))


@pytest.mark.parametrize(
    ("name", "tenant", "model", "expected"),
    [
        ("ada", "", "large", "ada and large"),
        ("ada", "", "small", "ada or ben"),
        ("ben", "0123456789abcdef", "", "ada or ben"),
        ("cleo", "0123456789abcdef", "large", "a tenant"),
        (None, "", "large", "all others"),
    ],
)
def test_the_first_rule_that_fits_counts(
    monkeypatch: pytest.MonkeyPatch, name: str | None, tenant: str, model: str, expected: str
) -> None:
    request = CompletionRequest("/v1/chat/completions", "r", tenant=tenant, name=name or "")
    with start(monkeypatch, RULES) as application:
        asked = application.ask("on_request", request, {"messages": [], "model": model})
    assert asked.value["messages"] == [{"role": "system", "content": expected}]


def test_parts_stay_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"role": "system", "content": [{"type": "text", "text": "OWN"}], "name": "x"}
    with start(monkeypatch, [{"text": "OURS"}]) as application:
        request = CompletionRequest("/v1/chat/completions", "r")
        asked = application.ask("on_request", request, {"messages": [own]})
    parts = [{"type": "text", "text": "OURS\n\n"}, {"type": "text", "text": "OWN"}]
    assert asked.value["messages"] == [{"role": "system", "content": parts, "name": "x"}]


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ([], "rules"),
        ([{}], "text or file"),
        ([{"text": "a", "file": "b"}], "text or file"),
        ([{"text": "a", "mode": "append"}], "mode"),
        ([{"text": "a", "tenant": "b"}], "tenant"),
        ([{"text": "a", "keys_sha256": ["a key in clear"]}], "keys_sha256"),
        ([{"text": "a"}, {"file": "/nowhere"}], r"rules\[1\].file"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, rules: Any, named: str) -> None:
    with pytest.raises(PluginError, match=named), start(monkeypatch, rules):
        pass


def test_a_file_that_is_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n")
    with (
        pytest.raises(PluginError, match="is empty"),
        start(monkeypatch, [{"file": str(tmp_path / "empty")}]),
    ):
        pass
