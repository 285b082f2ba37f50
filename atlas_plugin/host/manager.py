"""Loads, starts and stops plugins, and takes out those that fail."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from atlas_plugin.errors import PluginError
from atlas_plugin.hookspecs import PluginInfo, Plugins, StatusReport
from atlas_plugin.host import discovery
from atlas_plugin.host.discovery import Candidate
from atlas_plugin.host.hook_workers import HookWorkers
from atlas_plugin.host.hooks import Hooks, last_line
from atlas_plugin.host.host import Host, ServerHost
from atlas_plugin.host.request_hooks import HookTable
from atlas_plugin.host.settings import Settings
from atlas_plugin.metrics.families import Family
from atlas_plugin.routing import Router, Routes

log = logging.getLogger("atlas")

_P = TypeVar("_P")


@dataclass
class _Plugin:
    candidate: Candidate
    info: PluginInfo
    module: object = None
    started: bool = False


class PluginManager:
    """All plugins of a server. Any thread may call all but `load`, `start` and `stop`."""

    def __init__(self) -> None:
        self.router = Router()
        self.hooks = Hooks()
        self._plugins: list[_Plugin] = []
        self._tables: dict[int, HookTable] = {}
        self._tallies: Callable[[], list[dict[str, Any]]] = list

    def load(self, settings: Settings, builtins: Mapping[str, object]) -> None:
        """Import every plugin that `settings` and the environment name; one that fails is recorded so.

        `builtins` are those that come with ATLAS, by name; they come before all others.
        """
        disabled = discovery.disabled_names(settings)
        for candidate in discovery.find(settings, builtins):
            info = PluginInfo(
                candidate.name, candidate.source, candidate.location, candidate.version, candidate.explicit
            )
            plugin = _Plugin(candidate, info)
            if candidate.name in disabled:
                plugin.info = replace(info, state="disabled")
            else:
                with self._failing(plugin, "loading"):
                    plugin.module = self._load(candidate)
            self._plugins.append(plugin)
        # Hooks are asked in load order.
        for plugin in reversed(self._active()):
            with self._failing(plugin, "loading"):
                self._register(plugin)
        for name in disabled:
            if all(plugin.info.name != name for plugin in self._plugins):
                log.warning("no:%s disables nothing: there is no plugin of that name", name)

    def start(self, host: Host) -> None:
        """Run `startup` and `register_routes` of each plugin, in load order; one that fails is taken out."""
        public_host = _narrowed(host, Host)
        public_plugins: Plugins = _narrowed(self, Plugins)
        for plugin in self._active():
            name = plugin.info.name
            with self._failing(plugin, "startup"):
                plugin.started = True
                self.hooks.call_one(plugin.module, "startup", host=public_host, plugins=public_plugins)
                routes = Routes(name, builtin=plugin.info.source == "builtin")
                self.hooks.call_one(plugin.module, "register_routes", routes=routes)
                self.router.include(routes)
                plugin.info = replace(plugin.info, routes=tuple(map(str, routes.collected)))
                self.hooks.set_ready(name, True)

    def join_requests(self, host: ServerHost) -> None:
        """Have the server ask the hooks that plugins have on the path of requests; once, after `start`."""
        table = HookTable(self.hooks, len(self._tables) + 1, host.settings().integer("hook_deadline_ms"))
        self._tables[table.number] = table
        self._tallies = host.hook_tallies
        if rows := table.rows():
            host.set_request_hooks(table.number, rows)
            HookWorkers(host, self._tables).start()

    def stop(self) -> None:
        """Run `shutdown` of each plugin that was started, in reverse order; what it raises is logged."""
        for plugin in reversed(self._active()):
            self._shut_down(plugin)

    def infos(self) -> list[PluginInfo]:
        """Every plugin found, in load order."""
        tallies = self._tallies()
        return [
            replace(
                info,
                hook_failures=self.hooks.failures(info.name),
                request_hooks=tuple(self._on_path(info.name, tallies)),
            )
            if info.hooks
            else info
            for info in (plugin.info for plugin in self._plugins)
        ]

    def _on_path(self, name: str, tallies: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        for table in list(self._tables.values())[-1:]:
            for row in table.of_plugin(name):
                tally = (one for one in tallies if one["plugin"] == name and one["hook"] == row["hook"])
                yield {**row, **next(tally, {})}

    @property
    def failed(self) -> list[PluginInfo]:
        """The plugins that were asked for and are not running."""
        return [info for info in self.infos() if info.state == "failed"]

    @property
    def failing(self) -> list[str]:
        """A sentence for each hook that failed when it was last asked."""
        return [
            f"plugin '{plugin.info.name}' fails in {hook}: {why}"
            for plugin in self._active()
            for hook, why in self.hooks.failing(plugin.info.name).items()
        ]

    def reports(self) -> list[StatusReport]:
        """What the plugins say about themselves now."""
        reports: list[StatusReport] = self.hooks.ask.report_status()
        return reports

    def metrics(self) -> list[Family]:
        """What the plugins add to the metrics now."""
        return [family for families in self.hooks.ask.report_metrics() for family in families]

    def problems(self, reports: Iterable[StatusReport]) -> list[str]:
        """A sentence for each thing that is wrong now; `reports` are those of `reports()`."""
        failed = (f"plugin '{info.name}' failed: {info.error}" for info in self.failed)
        off = (
            f"plugin '{one['plugin']}' is off in {one['hook']}: it missed too many deadlines in a row; "
            f"POST /v1/atlas/plugins/{one['plugin']}/enable turns it on"
            for one in self._tallies()
            if one["is_off"]
        )
        return [*failed, *self.failing, *off, *(problem for report in reports for problem in report.problems)]

    def _active(self) -> list[_Plugin]:
        return [plugin for plugin in self._plugins if plugin.info.state == "active"]

    def _load(self, candidate: Candidate) -> object:
        name = candidate.name
        for other in self._plugins:
            if other.info.name == name:
                raise PluginError(
                    name, f"the name is taken by {other.info.location}: rename one, or use no:{name}"
                )
        module = candidate.load()
        for other in self._active():
            if other.module is module:
                raise PluginError(name, f"it is loaded already, as plugin '{other.info.name}'")
        return module

    def _register(self, plugin: _Plugin) -> None:
        name = plugin.info.name
        hooks = self.hooks.register(plugin.module, name)
        if not hooks:
            log.warning("plugin '%s' has no hooks: mark its functions with @hookimpl", name)
        version = plugin.info.version or getattr(plugin.module, "__version__", None)
        plugin.info = replace(plugin.info, version=version and str(version), hooks=hooks)

    @contextmanager
    def _failing(self, plugin: _Plugin, phase: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            log.exception("plugin '%s' failed in %s and is disabled", plugin.info.name, phase)
            self._shut_down(plugin)
            plugin.info = replace(plugin.info, state="failed", error=last_line(error), hooks=())
            if plugin.module is not None:
                self.hooks.unregister(plugin.module)

    def _shut_down(self, plugin: _Plugin) -> None:
        if plugin.started:
            plugin.started = False
            self.hooks.set_ready(plugin.info.name, False)
            try:
                self.hooks.call_one(plugin.module, "shutdown")
            except BaseException:
                log.exception("plugin '%s' failed in shutdown", plugin.info.name)


def _narrowed(whole: _P, protocol: type) -> _P:
    """What plugins get of an object: the names of a protocol, and no other."""

    class Narrowed:
        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or name not in vars(protocol):
                raise AttributeError(f"{protocol.__name__} has no '{name}'; docs/plugins.md says what it has")
            return getattr(whole, name)

    return cast(_P, Narrowed())
