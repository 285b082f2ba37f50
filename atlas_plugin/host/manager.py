"""Loads plugins, runs their hooks, and keeps a failing one from harming the rest."""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import pluggy

from atlas_plugin import hookspecs
from atlas_plugin.errors import PluginError
from atlas_plugin.hookspecs import StatusReport
from atlas_plugin.host import discovery
from atlas_plugin.host.discovery import Candidate
from atlas_plugin.host.host import Host, ServerCall
from atlas_plugin.host.settings import Settings
from atlas_plugin.metrics.families import Family
from atlas_plugin.routing import Router, Routes

log = logging.getLogger("atlas")

_Answer = TypeVar("_Answer")
_UNSUPPORTED_OPTIONS = ("wrapper", "hookwrapper", "tryfirst", "trylast", "specname")


@dataclass(frozen=True)
class PluginInfo:
    """A plugin and what became of it. `error` is the last line of its traceback.

    `hook_failures` counts, for each hook that is asked while the server runs, how often it failed.
    """

    name: str
    source: str
    location: str
    version: str | None
    explicit: bool
    state: Literal["active", "disabled", "failed"] = "active"
    error: str | None = None
    routes: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    hook_failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class HookCalls:
    """How often a hook of a plugin was called so far, how often it failed, how long it took in all."""

    plugin: str
    hook: str
    calls: int
    errors: int
    seconds: float


@dataclass(slots=True)
class _Tally:
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0


@dataclass
class _Plugin:
    candidate: Candidate
    info: PluginInfo
    module: object = None
    hooks: dict[str, pluggy.HookImpl] = field(default_factory=dict)
    started: bool = False
    ready: bool = False
    """Between startup and shutdown: it can be asked."""
    failing: dict[str, str] = field(default_factory=dict)
    """Why a hook's last call failed, by hook."""
    tallies: dict[str, _Tally] = field(default_factory=dict)


class PluginManager:
    """All plugins of a server. Any thread may call all but `load`, `start` and `stop`."""

    def __init__(self) -> None:
        self.router = Router()
        # Without the plugin "memory" there is nothing to write.
        self.calls: dict[int, Callable[[Mapping[str, Any]], Any]] = {ServerCall.SYNC: lambda argument: {}}
        """What answers the server's own questions, by the number of `atlas_python_call`."""
        self.families: list[Callable[[], Iterable[Family]]] = []
        """What other parts of ATLAS add to the metrics; called each time that somebody asks for them."""
        self._plugins: list[_Plugin] = []
        self._counting = threading.Lock()
        self._pluggy = pluggy.PluginManager("atlas")
        self._pluggy.add_hookspecs(hookspecs)

    def load(self, settings: Settings) -> None:
        """Import every plugin that `settings` and the environment name; one that fails is recorded so."""
        disabled = discovery.disabled_names(settings)
        for candidate in discovery.find(settings):
            info = PluginInfo(
                candidate.name, candidate.source, candidate.location, candidate.version, candidate.explicit
            )
            plugin = _Plugin(candidate, info)
            if candidate.name in disabled:
                plugin.info = replace(info, state="disabled")
            else:
                with self._failing(plugin, "loading"):
                    self._register(plugin)
            self._plugins.append(plugin)
        for name in disabled:
            if all(plugin.info.name != name for plugin in self._plugins):
                log.warning("no:%s disables nothing: there is no plugin of that name", name)

    def start(self, host: Host) -> None:
        """Run `startup` and `register_routes` of each plugin, in load order; one that fails is taken out."""
        for plugin in self._active():
            with self._failing(plugin, "startup"):
                plugin.started = True
                self._call(plugin, "startup", host=host, plugins=self)
                routes = Routes(plugin.info.name, builtin=plugin.info.source == "builtin")
                self._call(plugin, "register_routes", routes=routes)
                self.router.include(routes)
                plugin.info = replace(plugin.info, routes=tuple(map(str, routes.collected)))
                plugin.ready = True

    def stop(self) -> None:
        """Run `shutdown` of each plugin that was started, in reverse order; what it raises is logged."""
        for plugin in reversed(self._active()):
            self._shut_down(plugin)

    def infos(self) -> list[PluginInfo]:
        """Every plugin found, in load order."""
        return [plugin.info for plugin in self._plugins]

    @property
    def failed(self) -> list[PluginInfo]:
        """The plugins that were asked for and are not running."""
        return [info for info in self.infos() if info.state == "failed"]

    @property
    def failing(self) -> list[str]:
        """A sentence for each hook that failed when it was last asked."""
        return [
            f"plugin '{plugin.info.name}' fails in {hook}: {why}"
            for plugin in self._plugins
            for hook, why in dict(plugin.failing).items()
        ]

    def implements(self, hook: str) -> bool:
        """Whether any plugin that is running has the hook."""
        return any(plugin.ready and hook in plugin.hooks for plugin in self._plugins)

    def ask(self, hook: str, check: Callable[[Any], _Answer], **arguments: Any) -> _Answer | None:
        """The first answer that is not None, in load order but ATLAS's own plugins last; None without one.

        `check` returns the answer or raises, as for a wrong type. A plugin that fails is logged once and
        counted, and the next is asked.
        """
        for plugin in sorted(self._plugins, key=lambda plugin: plugin.info.source == "builtin"):
            if plugin.ready and hook in plugin.hooks:
                try:
                    checked: _Answer | None = self._call(plugin, hook, check, **arguments)
                except BaseException as error:
                    self._count_failure(plugin, hook, error)
                    continue
                plugin.failing.pop(hook, None)
                if checked is not None:
                    return checked
        return None

    def reload(self, changed: Mapping[str, Any]) -> None:
        """Tell each plugin, in load order, which settings changed; one that fails is logged and counted."""
        for plugin in self._plugins:
            if plugin.ready and "reload" in plugin.hooks:
                try:
                    self._call(plugin, "reload", changed=changed)
                except BaseException as error:
                    self._count_failure(plugin, "reload", error)
                else:
                    plugin.failing.pop("reload", None)

    def reports(self) -> list[StatusReport]:
        """What the plugins say about themselves now; one that raises is reported as a problem."""
        reports: list[StatusReport] = []
        for plugin in self._active():
            try:
                report = self._call(plugin, "report_status", _status_report)
            except BaseException as error:
                log.exception("plugin '%s' failed in report_status", plugin.info.name)
                problem = f"plugin '{plugin.info.name}' failed in report_status: {_last_line(error)}"
                report = StatusReport(problems=(problem,))
            if report is not None:
                reports.append(report)
        return reports

    def problems(self, reports: Iterable[StatusReport]) -> list[str]:
        """A sentence for each thing that is wrong now; `reports` are those of `reports()`."""
        failed = (f"plugin '{info.name}' failed: {info.error}" for info in self.failed)
        return [*failed, *self.failing, *(problem for report in reports for problem in report.problems)]

    def hook_calls(self) -> list[HookCalls]:
        """How the hooks of all plugins were called since the server's start."""
        with self._counting:
            return [
                HookCalls(plugin.info.name, hook, tally.calls, tally.errors, tally.seconds)
                for plugin in self._plugins
                for hook, tally in plugin.tallies.items()
            ]

    def _active(self) -> list[_Plugin]:
        return [plugin for plugin in self._plugins if plugin.info.state == "active"]

    def _register(self, plugin: _Plugin) -> None:
        name = plugin.info.name
        for other in self._plugins:
            if other.info.name == name:
                raise PluginError(
                    name, f"the name is taken by {other.info.location}: rename one, or use no:{name}"
                )
        module = plugin.candidate.load()
        if other_name := self._pluggy.get_name(module):
            raise PluginError(name, f"it is loaded already, as plugin '{other_name}'")
        plugin.module = module
        self._pluggy.register(plugin.module, name)
        for caller in self._pluggy.get_hookcallers(plugin.module) or ():
            for impl in caller.get_hookimpls():
                if impl.plugin is plugin.module and not (impl.optionalhook and not caller.has_spec()):
                    self._check(impl, caller)
                    plugin.hooks[caller.name] = impl
                    plugin.tallies[caller.name] = _Tally()
        if not plugin.hooks:
            log.warning("plugin '%s' has no hooks: mark its functions with @hookimpl", name)
        version = plugin.info.version or getattr(plugin.module, "__version__", None)
        plugin.info = replace(
            plugin.info, version=version and str(version), hooks=tuple(sorted(plugin.hooks))
        )

    def _check(self, impl: pluggy.HookImpl, caller: pluggy.HookCaller) -> None:
        if not caller.has_spec():
            hooks = ", ".join(
                sorted(name for name, hook in vars(self._pluggy.hook).items() if hook.has_spec())
            )
            raise PluginError(impl.plugin_name, f"there is no hook '{caller.name}'; the hooks are {hooks}")
        for option in _UNSUPPORTED_OPTIONS:
            if impl.opts.get(option):
                message = f"hook '{caller.name}': {option} is not supported; hooks run in load order"
                raise PluginError(impl.plugin_name, message)

    def _call(
        self, plugin: _Plugin, hook: str, check: Callable[[Any], Any] | None = None, /, **arguments: Any
    ) -> Any:
        # Not through pluggy's own call: one plugin's exception there ends the call for all that follow.
        impl = plugin.hooks.get(hook)
        if impl is None:
            return None
        failed, begun = 1, time.perf_counter()
        try:
            answer = impl.function(*(arguments[name] for name in impl.argnames))
            checked = answer if answer is None or check is None else check(answer)
            failed = 0
        finally:
            seconds = time.perf_counter() - begun
            tally = plugin.tallies[hook]
            with self._counting:
                tally.calls += 1
                tally.errors += failed
                tally.seconds += seconds
        return checked

    def _count_failure(self, plugin: _Plugin, hook: str, error: BaseException) -> None:
        with self._counting:
            failures = plugin.info.hook_failures.get(hook, 0) + 1
            counts = {**plugin.info.hook_failures, hook: failures}
            plugin.info = replace(plugin.info, hook_failures=counts)
            plugin.failing[hook] = _last_line(error)
        if failures == 1:
            name = plugin.info.name
            log.error("plugin '%s' failed in %s; more of it is only counted", name, hook, exc_info=error)

    @contextmanager
    def _failing(self, plugin: _Plugin, phase: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            log.exception("plugin '%s' failed in %s and is disabled", plugin.info.name, phase)
            self._shut_down(plugin)
            plugin.info = replace(plugin.info, state="failed", error=_last_line(error), hooks=())
            plugin.hooks = {}
            if self._pluggy.is_registered(plugin.module):
                self._pluggy.unregister(plugin.module)

    def _shut_down(self, plugin: _Plugin) -> None:
        if plugin.started:
            plugin.started = plugin.ready = False
            try:
                self._call(plugin, "shutdown")
            except BaseException:
                log.exception("plugin '%s' failed in shutdown", plugin.info.name)


def _status_report(answer: Any) -> StatusReport:
    if not isinstance(answer, StatusReport):
        raise TypeError(f"report_status returned {type(answer).__name__}, not StatusReport or None")
    return answer


def _last_line(error: BaseException) -> str:
    if isinstance(error, PluginError):
        return str(error)
    return traceback.format_exception_only(error)[-1].strip().splitlines()[-1]
