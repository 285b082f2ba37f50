"""Runs hooks through pluggy, and keeps an implementation that fails from harming the rest.

What pluggy offers holds: `tryfirst`, `trylast`, `wrapper`, and specifications with `firstresult`. What is
added stands where pluggy executes a call: each implementation is counted, timed and checked, and one that
fails counts as one that had no answer.
"""

import copy
import logging
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pluggy

from atlas_plugin import hookspecs
from atlas_plugin.errors import PluginError
from atlas_plugin.host.answers import CHECKS
from atlas_plugin.host.hookimpl import HookOptions, options_of

log = logging.getLogger("atlas")

_T = TypeVar("_T")

LIFECYCLE = frozenset(
    {
        "configure",
        "startup",
        "register_routes",
        "register_metrics",
        "register_tiers",
        "register_commands",
        "shutdown",
    }
)
"""Hooks that are called plugin by plugin, in load order; what they raise, the caller gets."""
_OPTIONS_OF_ORDER = ("wrapper", "tryfirst", "trylast")


@dataclass(frozen=True)
class HookCalls:
    """How often a hook of a plugin was called so far, how often it failed, how long it took in all."""

    plugin: str
    hook: str
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Tally:
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0


class Hooks:
    """The hooks of all plugins. Any thread may call all but `register` and `unregister`."""

    def __init__(self, before: "Hooks | None" = None) -> None:
        """Counts go on from those `before`."""
        self._pluggy = pluggy.PluginManager("atlas")
        self._pluggy.add_hookspecs(hookspecs)
        self._multicall = self._pluggy._inner_hookexec
        self._pluggy._inner_hookexec = self._execute
        self._guarded: dict[pluggy.HookImpl, pluggy.HookImpl] = {}
        self._tallies: dict[tuple[str, str], _Tally] = before._tallies if before else {}
        self._failing: dict[tuple[str, str], str] = before._failing if before else {}
        self._ready: frozenset[str] = frozenset()
        self._counting: threading.Lock = before._counting if before else threading.Lock()

    @property
    def ask(self) -> Any:
        """A function for each hook, which asks the plugins that are ready: `ask.admit(layer=…, touch=…)`."""
        return self._pluggy.hook

    def register(self, plugin: object, name: str) -> tuple[str, ...]:
        """Take in a plugin's hooks; their names. A plugin registered later is asked earlier.

        Raises PluginError, or what pluggy raises, for what is wrong.
        """
        self._pluggy.register(plugin, name)
        found: set[str] = set()
        for caller in self._pluggy.get_hookcallers(plugin) or ():
            for impl in caller.get_hookimpls():
                if impl.plugin is plugin and not (impl.optionalhook and not caller.has_spec()):
                    self._check(impl, caller)
                    self._tallies.setdefault((name, caller.name), _Tally())
                    if caller.name not in (*hookspecs.REQUEST_HOOKS, "periodic"):
                        self._guarded[impl] = self._guard(impl, caller)
                    found.add(caller.name)
        return tuple(sorted(found))

    def unregister(self, plugin: object) -> None:
        """Take out a plugin's hooks, where it has some."""
        if self._pluggy.is_registered(plugin):
            self._pluggy.unregister(plugin)

    def call_one(self, plugin: object, hook: str, **arguments: Any) -> list[Any]:
        """Call a hook of LIFECYCLE of one plugin, where it has it; its answers. Raises what it raises."""
        others = self._pluggy.get_plugins() - {plugin}
        answers: list[Any] = self._pluggy.subset_hook_caller(hook, others)(**arguments)
        return answers

    def count_too(self, plugin: str, what: str) -> None:
        """Have `attempt` count what is no hook, but a plugin's."""
        self._tallies.setdefault((plugin, what), _Tally())

    def set_ready(self, name: str, is_ready: bool) -> None:
        """Say from when to when a plugin can be asked."""
        self._ready = self._ready | {name} if is_ready else self._ready - {name}

    def implements(self, hook: str) -> bool:
        """Whether any plugin that is ready has the hook."""
        return any(self.plugins_with(hook).values())

    def plugins_with(self, hook: str) -> dict[str, bool]:
        """The names of the plugins that have the hook, and whether each is ready."""
        impls = getattr(self._pluggy.hook, hook).get_hookimpls()
        return {impl.plugin_name: impl.plugin_name in self._ready for impl in impls}

    def of_plugin(self, plugin: object, hook: str) -> Callable[..., Any] | None:
        """A plugin's implementation of a hook."""
        impls = getattr(self._pluggy.hook, hook).get_hookimpls()
        return next((impl.function for impl in impls if impl.plugin is plugin), None)

    def fails_closed(self, plugin: object, hook: str) -> bool:
        """Whether a plugin has a hook of REQUEST_HOOKS and requests are refused where it fails."""
        function = self.of_plugin(plugin, hook)
        if function is None:
            return False
        options = options_of(function) or HookOptions()
        return (options.fails or hookspecs.usual_failing(hook)) == "closed"

    def on_path(self, hook: str) -> list[tuple[pluggy.HookImpl, HookOptions]]:
        """The implementations of a hook of REQUEST_HOOKS that can be asked, with what their plugins say."""
        impls = getattr(self._pluggy.hook, hook).get_hookimpls()
        return [
            (impl, options_of(impl.function) or HookOptions())
            for impl in impls
            if impl.plugin_name in self._ready
        ]

    def attempt(self, plugin: str, hook: str, call: Callable[[], _T]) -> _T:
        """What the call returns; counted and timed as one of the hook. What it raises is passed on."""
        key = plugin, hook
        try:
            with self._timed(key, 1):
                value = call()
        except BaseException as error:
            self._count_failure(key, error)
            raise
        self._works(key)
        return value

    def failures(self, name: str) -> dict[str, int]:
        """How often the hooks of a plugin failed, by hook: those that are asked while the server runs."""
        with self._counting:
            return {
                hook: tally.errors
                for (plugin, hook), tally in self._tallies.items()
                if plugin == name and tally.errors and hook not in LIFECYCLE
            }

    def failing(self, name: str) -> dict[str, str]:
        """Why the last call failed, by hook, of a plugin's hooks where it did."""
        with self._counting:
            return {hook: why for (plugin, hook), why in self._failing.items() if plugin == name}

    def calls(self) -> list[HookCalls]:
        """How all hooks were called since the server's start."""
        with self._counting:
            return [
                HookCalls(plugin, hook, tally.calls, tally.errors, tally.seconds)
                for (plugin, hook), tally in self._tallies.items()
            ]

    def _check(self, impl: pluggy.HookImpl, caller: pluggy.HookCaller) -> None:
        if not caller.has_spec():
            hooks = ", ".join(
                sorted(name for name, hook in vars(self._pluggy.hook).items() if hook.has_spec())
            )
            raise PluginError(impl.plugin_name, f"there is no hook '{caller.name}'; the hooks are {hooks}")
        reason = ""
        if impl.hookwrapper:
            reason = "hookwrapper is not supported; use wrapper"
        for option in _OPTIONS_OF_ORDER if caller.name in LIFECYCLE else ():
            if getattr(impl, option):
                reason = f"{option} is not supported; plugins start in load order, each by itself"
        reason = reason or _wrong_options(caller.name, impl)
        if reason:
            raise PluginError(impl.plugin_name, f"hook '{caller.name}': {reason}")

    def _execute(
        self,
        hook_name: str,
        hook_impls: Sequence[pluggy.HookImpl],
        caller_kwargs: Mapping[str, object],
        firstresult: bool,
    ) -> object:
        asked = [
            self._guarded[impl]
            for impl in hook_impls
            if hook_name in LIFECYCLE or impl.plugin_name in self._ready
        ]
        return self._multicall(hook_name, asked, caller_kwargs, firstresult)

    def _guard(self, impl: pluggy.HookImpl, caller: pluggy.HookCaller) -> pluggy.HookImpl:
        """The same implementation, which takes all arguments of the hook and does not raise."""
        assert caller.spec is not None
        key = impl.plugin_name, caller.name
        names = tuple(caller.spec.argnames)
        check = CHECKS.get(caller.name, _anything)
        first_only = bool((caller.spec.opts or {}).get("firstresult"))

        def call(arguments: Mapping[str, Any]) -> Any:
            given = {name: arguments[name] for name in impl.kwargnames if name in arguments}
            return impl.function(*(arguments[name] for name in impl.argnames), **given)

        def checked(arguments: Mapping[str, Any]) -> Any:
            found = call(arguments)
            return None if found is None else check(found, arguments)

        def answer(*values: Any) -> Any:
            arguments = dict(zip(names, values, strict=True))
            try:
                return self.attempt(*key, lambda: checked(arguments))
            except BaseException:
                if caller.name in LIFECYCLE:
                    raise
                return None

        def wrap(*values: Any) -> Generator[None, Any, Any]:
            arguments = dict(zip(names, values, strict=True))
            try:
                with self._timed(key, 1):
                    wrapper = call(arguments)
                    next(wrapper)
            except BaseException as error:
                self._count_failure(key, error)
                return (yield)
            inner = yield
            try:
                with self._timed(key, 0):
                    found = _last(wrapper, inner)
                    if first_only:
                        found = None if found is None else check(found, arguments)
                    else:
                        found = [check(one, arguments) for one in found]
            except BaseException as error:
                self._count_failure(key, error)
                return inner
            self._works(key)
            return found

        guarded = copy.copy(impl)
        for name, value in (
            ("function", wrap if impl.wrapper else answer),
            ("argnames", names),
            ("kwargnames", ()),
        ):
            setattr(guarded, name, value)
        return guarded

    @contextmanager
    def _timed(self, key: tuple[str, str], calls: int) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            with self._counting:
                self._tallies[key].calls += calls
                self._tallies[key].seconds += seconds

    def _count_failure(self, key: tuple[str, str], error: BaseException) -> None:
        name, hook = key
        with self._counting:
            self._tallies[key].errors += 1
            is_first = self._tallies[key].errors == 1
            if hook in LIFECYCLE:
                return
            self._failing[key] = last_line(error)
        if is_first:
            log.error("plugin '%s' failed in %s; more of it is only counted", name, hook, exc_info=error)

    def _works(self, key: tuple[str, str]) -> None:
        if key in self._failing:
            with self._counting:
                self._failing.pop(key, None)


def _wrong_options(hook: str, impl: pluggy.HookImpl) -> str:
    options = options_of(impl.function)
    ordered = any(getattr(impl, option) for option in _OPTIONS_OF_ORDER)
    if hook == "periodic":
        fits = options is not None and options == HookOptions(seconds=options.seconds) and options.seconds
        return "" if fits and not ordered else "it needs @hookimpl(seconds=…), and takes nothing else"
    if hook in hookspecs.REQUEST_HOOKS:
        if ordered:
            return "wrapper, tryfirst and trylast are not supported; use priority"
        return "seconds is for periodic" if options is not None and options.seconds else ""
    if options is not None:
        return f"it takes no options; those that do are {', '.join(hookspecs.REQUEST_HOOKS)}"
    return ""


def last_line(error: BaseException) -> str:
    """An error as the last line of its traceback; a PluginError says all by itself."""
    if isinstance(error, PluginError):
        return str(error)
    return traceback.format_exception_only(error)[-1].strip().splitlines()[-1]


def _anything(answer: Any, arguments: Mapping[str, Any]) -> Any:
    return answer


def _last(wrapper: Generator[None, Any, Any], inner: Any) -> Any:
    """What a wrapper makes of the answer of those inside."""
    try:
        wrapper.send(inner)
    except StopIteration as end:
        return end.value
    wrapper.close()
    raise RuntimeError("the wrapper yields a second time")
