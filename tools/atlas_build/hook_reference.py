"""Writes docs/hooks.md: every hook that a plugin may have, from the specifications of the server."""

import argparse
import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from atlas_build.console import REPOSITORY
from atlas_plugin import completions, facts, hookspecs
from atlas_plugin.completions import Identity, Modify, Pass, Reject, Respond
from atlas_plugin.host import hookimpl
from atlas_plugin.host.hooks import LIFECYCLE
from atlas_plugin.host.verdicts import step_of
from atlas_plugin.http import Response
from atlas_plugin.memory import news

OUTPUT = REPOSITORY / "docs/hooks.md"

COUNTED = ("atlas_hook_calls_total", "atlas_hook_errors_total", "atlas_hook_seconds_total")
WAITED_FOR = (
    "atlas_hook_timeouts_total",
    "atlas_hook_unserved_total",
    "atlas_hook_late_total",
    "atlas_hook_wait_seconds_total",
    "atlas_hook_off",
)
UNTOLD = "atlas_hook_untold_total"

# What a hook on the path of requests may give back in place of what it got.
_VALUES: Mapping[str, tuple[Any, str]] = {
    "on_request": ({}, "a dict"),
    "on_prompt": ("", "text, tokens, or a list of prompts"),
    "on_response": ({}, "a dict, or a list where it was one"),
    "on_stream_chunk": ([], "a list of dicts, the events"),
}
_LOAD_ORDER = "load order; `tryfirst`, `trylast` and `wrapper` change it"
_ELSEWHERE = {
    "Host": "plugins.md#hooks",
    "Plugins": "plugins.md#hooks",
    "Routes": "plugins.md#hooks",
    "Metrics": "plugins.md#metrics",
    "Tier": "plugins.md#tiers-of-the-memory",
    "Typer": "plugins.md#commands",
    "Family": "plugins.md#metrics",
    "Touch": "eviction.md",
    "Kind": "eviction.md#for-authors-of-plugins",
    "Eviction": "eviction.md",
    "Response": "plugins.md#responses",
    "Headers": "plugins.md#requests",
}


@dataclass(frozen=True)
class Manner:
    """How a hook is asked, as sentences without a full stop; `metrics` are families."""

    waits: str
    deadline: str
    order: str
    fails: str
    metrics: Sequence[str]


_PASSED_OVER = "passed over for this time"
_FAILING = {
    "on_stream_chunk": 'passed over; with `fails="closed"` the stream ends with an error',
    "authenticate": 'the request is refused with 503; with `fails="open"` passed over',
}
_MANNERS: Mapping[str, Manner] = {
    "report_status": Manner(
        "`GET /v1/atlas/status`",
        "the setting `python_patience_ms`, for all plugins together",
        _LOAD_ORDER,
        _PASSED_OVER,
        COUNTED,
    ),
    "report_metrics": Manner(
        "`GET /v1/atlas/metrics/prometheus`",
        "the setting `python_patience_ms`, for all plugins together",
        _LOAD_ORDER,
        _PASSED_OVER,
        COUNTED,
    ),
    "periodic": Manner(
        "nobody: each plugin's has a thread of its own", "none", "none", _PASSED_OVER, COUNTED
    ),
    **{
        hook: Manner(
            "nobody: a thread beside the requests tells, in order",
            "none",
            _LOAD_ORDER,
            _PASSED_OVER,
            COUNTED,
        )
        for hook in ("on_saved", "on_restored")
    },
    "session_ttl": Manner(
        "nobody: a thread beside the requests asks, about each session every two seconds at most",
        "none",
        f"{_LOAD_ORDER}; the first answer that is not `None` counts",
        _PASSED_OVER,
        COUNTED,
    ),
    "reload": Manner("`POST /v1/atlas/config`", "none", _LOAD_ORDER, _PASSED_OVER, COUNTED),
    **{
        hook: Manner(
            "nobody: a thread beside the requests asks, and while it is late the server's own order holds",
            "none",
            f"{_LOAD_ORDER}; the first answer that is not `None` counts",
            _PASSED_OVER,
            COUNTED,
        )
        for hook in ("evict_order", "admit")
    },
}


def manner_of(hook: str) -> Manner:
    """How it is asked. Raises ValueError for a hook that nothing is said of here."""
    if hook == "register_commands":
        return Manner(
            "the `atlas` command",
            "none",
            "load order, plugin by plugin",
            "its commands are left out, with a warning",
            (),
        )
    if hook in LIFECYCLE:
        is_last = hook == "shutdown"
        return Manner(
            "the server's end" if is_last else "the server's start",
            "the setting `shutdown_timeout_s`, for all plugins together" if is_last else "none",
            "the reverse of load order" if is_last else "load order, plugin by plugin",
            "logged" if is_last else "the plugin is off, and the others go on",
            COUNTED,
        )
    if hook in hookspecs.REQUEST_HOOKS:
        default = next(row for row in facts.SETTINGS if row["name"] == "hook_deadline_ms")
        deadline = (
            f"`deadline_ms`, else the setting `hook_deadline_ms` ({default['default']}); "
            f"from 1 to {facts.MAX_DEADLINE_MS:,} ms"
        )
        allowed = [type(verdict) for verdict in _allowed(hook)]
        if Reject not in allowed:
            return Manner(
                "nobody",
                f"{deadline}. Nothing is delayed by one that takes longer, but it may be turned off",
                "`priority`, then the plugin's name",
                _PASSED_OVER,
                (*COUNTED, "atlas_hook_timeouts_total", "atlas_hook_off", UNTOLD),
            )
        return Manner(
            "the stream" if hook == "on_stream_chunk" else "the request",
            deadline,
            "`priority`, then the plugin's name"
            + ("; what one changed, the next one gets" if Modify in allowed else ""),
            _FAILING.get(hook, 'passed over; with `fails="closed"` the request is refused with 503'),
            (*COUNTED, *WAITED_FOR),
        )
    if hook not in _MANNERS:
        raise ValueError(f"say in tools/atlas_build/hook_reference.py who waits for the hook '{hook}'")
    return _MANNERS[hook]


def _allowed(hook: str) -> Iterator[Any]:
    """A sample of each verdict that the server takes from the hook, which is asked about it."""
    value, _ = _VALUES.get(hook, ({}, ""))
    body = b'{"events":[],"is_last":false}' if hook == "on_stream_chunk" else b"{}"
    for verdict in (None, Pass(), Modify(value), Reject(400, ""), Respond(Response()), Identity("a")):
        with suppress(TypeError):
            step_of(hook, verdict, body)
            yield verdict


def verdicts_of(hook: str) -> Iterator[str]:
    """What a hook on the path of requests may return."""
    _, described = _VALUES.get(hook, ({}, ""))
    for verdict in _allowed(hook):
        name = type(verdict).__name__
        link = f"[`{name}`](#{name.lower()})" if verdict else "`None`"
        yield f"{link} with {described}" if isinstance(verdict, Modify) else link


def _specs() -> Iterator[ast.FunctionDef]:
    """The hooks, in the order of the specifications."""
    for node in ast.parse(inspect.getsource(hookspecs)).body:
        if isinstance(node, ast.FunctionDef) and hasattr(getattr(hookspecs, node.name), "atlas_spec"):
            yield node


def _verdict() -> str:
    for node in ast.parse(inspect.getsource(completions)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "Verdict":
            return ast.unparse(node.value)
    raise LookupError("Verdict")


def _classes(module: Any, *only: str) -> Iterator[ast.ClassDef]:
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef) and (not only or node.name in only):
            yield node


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str, str]]:
    """The fields of a dataclass: name, type, default, and what its text says."""
    for at, part in enumerate(node.body):
        if not isinstance(part, ast.AnnAssign):
            continue
        after = node.body[at + 1] if at + 1 < len(node.body) else None
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        text = str(after.value.value) if is_text else ""  # type: ignore[union-attr]
        default = ast.unparse(part.value) if part.value and not isinstance(part.value, ast.Call) else ""
        yield ast.unparse(part.target), ast.unparse(part.annotation), default, text


def _linked(type_text: str, types: Sequence[str]) -> str:
    """A type as code, and a link where this page or another describes it."""
    for name in types:
        if name in type_text:
            return f"[`{type_text}`](#{name.lower()})"
    for name, page in _ELSEWHERE.items():
        if name in type_text.replace("[", " ").replace("]", " ").split():
            return f"[`{type_text}`]({page})"
    return f"`{type_text}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _hook(node: ast.FunctionDef, types: Sequence[str]) -> Iterator[str]:
    manner = manner_of(node.name)
    arguments = [
        (each.arg, ast.unparse(each.annotation).strip("'")) for each in node.args.args if each.annotation
    ]
    returns = ast.unparse(node.returns) if node.returns else "None"
    if node.name in hookspecs.REQUEST_HOOKS:
        answers = ", ".join(verdicts_of(node.name))
    else:
        answers = _linked(returns, types)
    rows = {
        "arguments": ", ".join(f"`{name}`: {_linked(text, types)}" for name, text in arguments) or "none",
        "may return": answers,
        "who waits": manner.waits,
        "deadline": manner.deadline,
        "order": manner.order,
        "one that fails": manner.fails,
        "metrics": ", ".join(f"`{name}`" for name in manner.metrics) or "none",
    }
    yield f"### {node.name}"
    yield ""
    yield inspect.cleandoc(ast.get_docstring(node) or "")
    yield ""
    yield f"`{node.name}({', '.join(f'{name}: {text}' for name, text in arguments)}) -> {returns}`"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {name} | {_cell(text)} |" for name, text in rows.items())
    yield ""


def _type(node: ast.ClassDef, types: Sequence[str]) -> Iterator[str]:
    yield f"### {node.name}"
    yield ""
    yield inspect.cleandoc(ast.get_docstring(node) or "")
    yield ""
    if fields := list(_fields(node)):
        yield "| field | type | default | |"
        yield "|---|---|---|---|"
        for name, kind, default, text in fields:
            shown = f"`{_cell(default)}`" if default else ""
            yield f"| `{name}` | {_cell(_linked(kind, types))} | {shown} | {_cell(text)} |"
        yield ""


def text_of() -> str:
    """What docs/hooks.md has to be."""
    specs = list(_specs())
    shapes = [*_classes(completions), *_classes(news), *_classes(hookspecs, "StatusReport")]
    types = [node.name for node in shapes]
    (options,) = _classes(hookimpl, "HookOptions")
    lines = [
        "# Hooks",
        "",
        "`make format` writes this page from `atlas_plugin/hookspecs.py` and `atlas_plugin/completions.py`.",
        "[plugins.md](plugins.md) says how hooks are used,",
        "[metrics.md](metrics.md#python-and-plugins) what the metrics mean.",
        "",
        "A hook is a function of that name, marked with `@hookimpl`. It names the arguments that it uses;",
        "the others can be left out.",
        "",
        "| hook | who waits | what it is for |",
        "|---|---|---|",
        *(
            f"| [`{node.name}({', '.join(each.arg for each in node.args.args)})`](#{node.name}) "
            f"| {manner_of(node.name).waits.partition(':')[0]} | {_cell(ast.get_docstring(node) or '')} |"
            for node in specs
        ),
        "",
        "## Every hook",
        "",
        *(line for node in specs for line in _hook(node, types)),
        "## Options",
        "",
        "`@hookimpl(…)` takes these for the hooks on the path of requests. The others have",
        "[`tryfirst`, `trylast` and `wrapper`](plugins.md#order-and-wrappers).",
        "",
        *list(_type(options, types))[4:],
        "## Types",
        "",
        "All of them are in `atlas_plugin`. None of them changes once it is made. `Json` is what",
        f"`json.loads` gives; `Verdict` is `{_verdict()}`.",
        "",
        *(line for node in shapes for line in _type(node, types)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Writes the page, or says that it is stale; the exit status."""
    parser = argparse.ArgumentParser(prog="tools/hooks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where the page is stale")
    is_check = parser.parse_args().check
    text = text_of()
    if OUTPUT.is_file() and OUTPUT.read_text(encoding="utf-8") == text:
        return 0
    if is_check:
        print("docs/hooks.md is stale: run make format")
        return 1
    OUTPUT.write_text(text, encoding="utf-8")
    return 0
