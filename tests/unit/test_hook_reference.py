"""docs/hooks.md, and the tool that writes it."""

import inspect
import re
import typing

import pytest

from atlas_build import hook_reference as tool
from atlas_plugin import Host, completions, facts, hookspecs
from tests.server.harness import REPOSITORY

PAGE = (REPOSITORY / "docs/hooks.md").read_text(encoding="utf-8")
SPECS = {
    name: function
    for name, function in vars(hookspecs).items()
    if inspect.isfunction(function) and hasattr(function, "atlas_spec")
}


def section(hook: str) -> str:
    found = re.search(rf"^### {hook}\n(.*?)(?=^##)", PAGE, re.M | re.S)
    assert found, hook
    return found[1]


def test_the_page_is_what_the_specifications_say() -> None:
    assert tool.text_of() == PAGE, "run make format"


@pytest.mark.parametrize("hook", SPECS)
def test_every_hook_is_documented(hook: str) -> None:
    text, arguments = section(hook), inspect.signature(SPECS[hook]).parameters
    assert f"[`{hook}({', '.join(arguments)})`](#{hook})" in PAGE
    assert text.startswith(f"\n{inspect.getdoc(SPECS[hook])}\n")
    for argument in arguments:
        assert f"`{argument}`: " in text
    for row in ("may return", "who waits", "deadline", "order", "one that fails", "metrics"):
        assert re.search(rf"^\| {row} \| \S.* \|$", text, re.M), row


def test_what_may_be_returned_is_what_the_server_takes() -> None:
    assert "[`Respond`]" in section("on_request")
    assert "[`Modify`](#modify) with a list of dicts" in section("on_stream_chunk")
    assert "[`Reject`]" in section("on_response")
    assert "[`Respond`]" not in section("on_response")
    assert "[`Reject`]" not in section("on_finished")


@pytest.mark.parametrize("hook", hookspecs.REQUEST_HOOKS)
def test_what_a_specification_returns_may_be_returned(hook: str) -> None:
    returns = inspect.signature(SPECS[hook]).return_annotation
    [row] = re.findall(r"^\| may return \| (.*) \|$", section(hook), re.M)
    if returns not in (None, completions.Verdict):
        assert {kind.__name__ for kind in typing.get_args(returns)} <= {
            *re.findall(r"`(\w+)`", row),
            "NoneType",
        }


def test_metrics_and_settings_are_those_that_there_are() -> None:
    metrics = (REPOSITORY / "docs/metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(atlas_hook_\w+)`", metrics))
    assert set(re.findall(r"`(atlas_hook_\w+)`", PAGE)) == documented
    settings = {row["name"] for row in facts.SETTINGS}
    assert {"hook_deadline_ms"} < set(re.findall(r"the setting `(\w+)`", PAGE)) <= settings


def test_a_hook_that_nothing_is_said_of_is_refused() -> None:
    with pytest.raises(ValueError, match="who waits for the hook 'on_moon'"):
        tool.manner_of("on_moon")


def test_the_table_of_what_others_have_knows_ours() -> None:
    table = (REPOSITORY / "docs/plugins.md").read_text(encoding="utf-8").partition("## What others have")[2]
    ours = "\n".join(line.rstrip("| ").rpartition(" | ")[2] for line in table.splitlines())
    awaited = {
        name
        for names in re.findall(r"not yet: ((?:`[\w.]+`(?:, )?)+)", ours)
        for name in re.findall(r"`([\w.]+)`", names)
    }
    assert awaited & SPECS.keys() == set()
    assert [name for name in awaited if name.startswith("host.") and hasattr(Host, name[5:])] == []
    assert set(SPECS) <= set(re.findall(r"`(\w+)`", ours))


def test_hooks_that_can_be_ordered_are_named() -> None:
    page = (REPOSITORY / "docs/plugins.md").read_text(encoding="utf-8")
    listed = page.partition("What pluggy offers beyond works for\n")[2].partition(":")[0]
    ordered = {hook for hook in SPECS if "`tryfirst`" in tool.manner_of(hook).order}
    assert set(re.findall(r"`(\w+)`", listed)) == ordered
