"""The hooks on the path of requests: who has them, in which order, and running one.

They are not called through pluggy, as a request waits for each with a deadline of its own, and as the server
must be able to go on behind one that does not come back.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atlas_plugin import json_text
from atlas_plugin.completions import Caller, CompletionRequest, chunk_of
from atlas_plugin.hookspecs import REQUEST_HOOKS, usual_failing
from atlas_plugin.host.hookimpl import HookOptions
from atlas_plugin.host.hooks import Hooks
from atlas_plugin.host.verdicts import FAIL, Step, step_of
from atlas_plugin.http import Headers

_MAX_STATES = 4096
_LAST = ("on_finished", "on_failed")
_ABOUT = ("request", "caller")


@dataclass(frozen=True)
class _Implementation:
    plugin: str
    hook: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]
    options: HookOptions


class HookTable:
    """Who has which hook, by the position in which the server asks. Immutable; any thread."""

    def __init__(self, hooks: Hooks, number: int, deadline_ms: int) -> None:
        self.number = number
        self._hooks = hooks
        self._default_deadline_ms = deadline_ms
        self._by_hook = {name: self._collect(name) for name in REQUEST_HOOKS}
        hooks_there = [name for name, all_of_it in self._by_hook.items() if all_of_it]
        self.keeps_state = len(hooks_there) > 1 or "on_stream_chunk" in hooks_there
        """Whether a request may come to more than one call, and its end is told."""

    def _collect(self, hook: str) -> list[_Implementation]:
        found = [
            _Implementation(impl.plugin_name, hook, impl.function, tuple(impl.argnames), options)
            for impl, options in self._hooks.on_path(hook)
        ]
        return sorted(found, key=lambda one: (one.options.priority, one.plugin))

    def rows(self) -> list[dict[str, Any]]:
        """As ATLAS_QUERY_HOOKS takes them."""
        return [
            {
                "hook": number,
                "plugin": one.plugin,
                "deadline_ms": one.options.deadline_ms or self._default_deadline_ms,
                "fails_closed": _fails(one) == "closed",
                "reads_body": not set(one.argnames) <= set(_ABOUT),
                "batch": one.options.batch,
            }
            for number, hook in enumerate(REQUEST_HOOKS)
            for one in self._by_hook[hook]
        ]

    def of_plugin(self, name: str) -> list[dict[str, Any]]:
        """The same of one plugin, with the hooks' names and what else the plugin said."""
        return [
            {
                "hook": hook,
                "deadline_ms": one.options.deadline_ms or self._default_deadline_ms,
                "fails": _fails(one),
                "priority": one.options.priority,
            }
            for hook, all_of_it in self._by_hook.items()
            for one in all_of_it
            if one.plugin == name
        ]

    def run(self, hook: str, position: int, about: CompletionRequest | Caller, body: bytes) -> Step:
        """Call one implementation; what it raises, or answers wrongly, is counted and is FAIL."""
        one = self._by_hook[hook][position]

        def call() -> Step:
            # Each gets a copy of its own, which it may change, and is not made where it is not asked for.
            given = [about if name in _ABOUT else _decoded(hook, body) for name in one.argnames]
            verdict = one.function(*given)
            return step_of(hook, verdict, body)

        try:
            return self._hooks.attempt(one.plugin, hook, call)
        except BaseException:
            return FAIL


def _fails(one: _Implementation) -> str:
    return one.options.fails or usual_failing(one.hook)


def _decoded(hook: str, body: bytes) -> Any:
    document = json_text.decode(body)
    return chunk_of(document) if hook == "on_stream_chunk" else document


class RequestStates:
    """What plugins keep of requests on their way, by the server's number. Any thread.

    Of those that the server could not tell the end of, the oldest are dropped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: OrderedDict[int, dict[str, Any]] = OrderedDict()

    def about(self, hook: str, number: int, head: Mapping[str, Any]) -> CompletionRequest | Caller:
        """The request as plugins see it, or who sends it."""
        head = {**head, "headers": Headers(head["headers"].items())}
        if hook == "authenticate":
            return Caller(**head)
        with self._lock:
            state = self._states.setdefault(number, {})
            if len(self._states) > _MAX_STATES:
                self._states.popitem(last=False)
        return CompletionRequest(**head, state=state)

    def end(self, hook: str, number: int, is_only: bool) -> None:
        """Forget it, where that was its last hook, or the only one."""
        if hook in _LAST or is_only:
            with self._lock:
                self._states.pop(number, None)
