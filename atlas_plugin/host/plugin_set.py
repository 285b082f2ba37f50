"""One set of plugins: loads and starts them, and takes out those that fail."""

import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from atlas_plugin.errors import PluginError
from atlas_plugin.hookspecs import REQUEST_HOOKS, PluginInfo, Plugins
from atlas_plugin.host import discovery, plugin_config
from atlas_plugin.host.discovery import Candidate
from atlas_plugin.host.hookimpl import options_of
from atlas_plugin.host.hooks import Hooks, last_line
from atlas_plugin.host.host import Host
from atlas_plugin.host.settings import Settings
from atlas_plugin.host.stand_in import refusing
from atlas_plugin.host.tier_calls import name_of, tiers_of
from atlas_plugin.host.worker import Worker
from atlas_plugin.metrics.families import Family
from atlas_plugin.metrics.registered import Metrics
from atlas_plugin.routing import Router, Routes
from atlas_plugin.tiers import Tier
from atlas_plugin.version import HOOK_API

log = logging.getLogger("atlas")


@dataclass(eq=False)
class LoadedPlugin:
    """A plugin, and what it has."""

    candidate: Candidate
    info: PluginInfo
    content: bytes
    """Of its file; empty where it has none."""
    module: object = None
    routes: Routes | None = None
    metrics: Metrics | None = None
    tiers: tuple[Tier, ...] = ()
    started: bool = False
    periodic: Worker | None = None


class PluginSet:
    """Plugins that serve together. One thread loads and starts them; any may use `router` and `hooks` then.

    Of the set `before`, plugins whose files are what they were go on as they are. One of these that cannot be
    in this set makes `load` and `start` raise PluginError.
    """

    def __init__(self, before: "PluginSet | None" = None) -> None:
        self.router = Router()
        self.hooks: Hooks = Hooks(before.hooks if before else None)
        self.plugins: list[LoadedPlugin] = []
        self.running = 0
        """Requests to routes that go on; guarded by `lock`."""
        self.lock = threading.Lock()
        self._metric_names: dict[str, str] = {}
        """The plugin that made each metric."""
        self._layers: dict[int, tuple[str, str]] = {}
        """The plugin and the tier of each layer."""
        self._before = {plugin.info.name: plugin for plugin in before.plugins} if before else {}

    def load(self, settings: Settings, builtins: Mapping[str, object]) -> None:
        """Import every plugin that `settings` and the environment name; one that fails is recorded so.

        `builtins` are those that come with ATLAS, by name; they come before all others.
        """
        disabled = discovery.disabled_names(settings)
        for candidate in discovery.find(settings, builtins):
            plugin = self._known(candidate) or _new(candidate)
            if candidate.name in disabled:
                plugin.info = replace(plugin.info, state="disabled")
            elif plugin.module is None:
                with self._failing(plugin, "loading"):
                    plugin.module = self._load(candidate)
            self.plugins.append(plugin)
        # Hooks are asked in load order.
        for plugin in reversed(self.active()):
            with self._failing(plugin, "loading"):
                self._register(plugin)
        for name in disabled:
            if all(plugin.info.name != name for plugin in self.plugins):
                log.warning("no:%s disables nothing: there is no plugin of that name", name)

    def start(self, host: Host, plugins: Plugins, config_file: str | None) -> None:
        """Run `startup` and `register_…` of each plugin, in load order; one that fails is taken out."""
        tables = plugin_config.read_tables(config_file)
        for name in tables.keys() - {plugin.info.name for plugin in self.plugins}:
            log.warning("[plugins.%s] of the configuration file is for no plugin that there is", name)
        for plugin in self.active():
            name = plugin.info.name
            with self._failing(plugin, "startup"):
                if not plugin.started:
                    self._configure(plugin, tables.get(name))
                    plugin.started = True
                    self.hooks.call_one(plugin.module, "startup", host=host, plugins=plugins)
                    plugin.routes = Routes(name, builtin=plugin.info.source == "builtin")
                    self.hooks.call_one(plugin.module, "register_routes", routes=plugin.routes)
                    plugin.metrics = Metrics()
                    self.hooks.call_one(plugin.module, "register_metrics", metrics=plugin.metrics)
                    plugin.tiers = tiers_of(name, self.hooks.call_one(plugin.module, "register_tiers"))
                if plugin.routes is not None:
                    self.router.include(plugin.routes)
                    plugin.info = replace(plugin.info, routes=tuple(map(str, plugin.routes.collected)))
                self._include_metrics(plugin)
                self._include_tiers(plugin)
                self.hooks.set_ready(name, True)
                self._repeat(plugin)

    def active(self) -> list[LoadedPlugin]:
        """Those that run, in load order."""
        return [plugin for plugin in self.plugins if plugin.info.state == "active"]

    def metrics(self) -> list[Family]:
        """What the metrics say now that plugins made."""
        made = (plugin.metrics for plugin in self.active() if plugin.metrics is not None)
        return [family for metrics in made for family in metrics.families()]

    def fresh(self) -> list[LoadedPlugin]:
        """Those that were not in the set before, or are not what they were, in load order."""
        return [plugin for plugin in self.plugins if not self._is_kept(plugin)]

    def newly_failed(self) -> list[PluginInfo]:
        """Those that failed, but for those that failed before and are what they were."""
        return [
            plugin.info
            for plugin in self.fresh()
            if plugin.info.state == "failed" and not self._failed_before(plugin)
        ]

    def shut_down(self, plugins: Iterable[LoadedPlugin]) -> None:
        """Run `shutdown` of each that was started, in reverse order; what it raises is logged."""
        for plugin in reversed(list(plugins)):
            self._shut_down(plugin)
            if plugin.info.source == "file":
                sys.modules.pop(getattr(plugin.module, "__name__", ""), None)

    def _known(self, candidate: Candidate) -> LoadedPlugin | None:
        before = self._before.get(candidate.name)
        is_same = before is not None and before.started and _is_same(before, candidate)
        return before if is_same else None

    def _is_kept(self, plugin: LoadedPlugin) -> bool:
        return self._before.get(plugin.info.name) is plugin

    def _failed_before(self, plugin: LoadedPlugin) -> bool:
        before = self._before.get(plugin.info.name)
        return before is not None and before.info.state == "failed" and _is_same(before, plugin.candidate)

    def _load(self, candidate: Candidate) -> object:
        name = candidate.name
        for other in self.plugins:
            if other.info.name == name:
                raise PluginError(
                    name, f"the name is taken by {other.info.location}: rename one, or use no:{name}"
                )
        module = candidate.load()
        needed = getattr(module, "ATLAS_API", HOOK_API)
        if not isinstance(needed, int) or not 1 <= needed <= HOOK_API:
            raise PluginError(name, f"it needs version {needed} of the hooks, and this ATLAS has {HOOK_API}")
        for other in self.active():
            if other.module is module:
                raise PluginError(name, f"it is loaded already, as plugin '{other.info.name}'")
        return module

    def _register(self, plugin: LoadedPlugin) -> None:
        name = plugin.info.name
        hooks = self.hooks.register(plugin.module, name)
        if not hooks:
            log.warning("plugin '%s' has no hooks: mark its functions with @hookimpl", name)
        version = plugin.info.version or getattr(plugin.module, "__version__", None)
        lines = (getattr(plugin.module, "__doc__", None) or "").strip().splitlines()
        plugin.info = replace(
            plugin.info,
            version=version and str(version),
            hooks=hooks,
            description=lines[0].strip() if lines else "",
        )

    def _configure(self, plugin: LoadedPlugin, table: Mapping[str, Any] | None) -> None:
        name, configure = plugin.info.name, self.hooks.of_plugin(plugin.module, "configure")
        if configure is not None:
            kind = plugin_config.config_type(name, configure)
            config = plugin_config.convert(name, kind, table or {}, os.environ)
            self.hooks.call_one(plugin.module, "configure", config=config)
        elif table is not None:
            raise PluginError(
                name, f"it takes no configuration: remove [plugins.{name}] from the configuration file"
            )

    def _include_metrics(self, plugin: LoadedPlugin) -> None:
        for metric in plugin.metrics.close() if plugin.metrics else ():
            owner = self._metric_names.setdefault(metric, plugin.info.name)
            if owner != plugin.info.name:
                raise PluginError(plugin.info.name, f"plugin '{owner}' has a metric {metric} already")

    def _include_tiers(self, plugin: LoadedPlugin) -> None:
        own: dict[int, tuple[str, str]] = {}
        for tier in plugin.tiers:
            owner = own.get(tier.layer) or self._layers.get(tier.layer)
            own[tier.layer] = plugin.info.name, name_of(tier)
            if owner is not None:
                raise PluginError(
                    plugin.info.name,
                    f"tier '{name_of(tier)}' asks for layer {tier.layer}, which is that of tier "
                    f"'{owner[1]}' of plugin '{owner[0]}': give one of them another `layer`",
                )
        self._layers.update(own)

    def _repeat(self, plugin: LoadedPlugin) -> None:
        name, periodic = plugin.info.name, self.hooks.of_plugin(plugin.module, "periodic")
        if periodic is None or plugin.periodic is not None:
            return
        options = options_of(periodic)
        assert options is not None and options.seconds is not None
        seconds = options.seconds

        def work() -> float:
            # What it raises is counted and logged as that of any hook.
            with suppress(BaseException):
                self.hooks.attempt(name, "periodic", periodic)
            return seconds

        plugin.periodic = Worker(f"atlas-periodic-{name}", work)
        plugin.periodic.start()

    @contextmanager
    def _failing(self, plugin: LoadedPlugin, phase: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if self._is_kept(plugin):
                raise PluginError(plugin.info.name, last_line(error)) from error
            log.exception("plugin '%s' failed in %s and is disabled", plugin.info.name, phase)
            self._shut_down(plugin)
            plugin.info = replace(plugin.info, state="failed", error=last_line(error), hooks=())
            if plugin.module is not None:
                closed = [hook for hook in REQUEST_HOOKS if self.hooks.fails_closed(plugin.module, hook)]
                self.hooks.unregister(plugin.module)
                self._refuse_for(plugin, closed)

    def _refuse_for(self, plugin: LoadedPlugin, closed: Sequence[str]) -> None:
        """Have the requests refused that the plugin was to allow."""
        if not closed:
            return
        name, error = plugin.info.name, plugin.info.error or ""
        hooks = self.hooks.register(refusing(closed, error), name)
        self.hooks.set_ready(name, True)
        plugin.info = replace(plugin.info, hooks=hooks)
        log.error(
            "requests are refused that plugin '%s' was to allow: mend it, or let them through with no:%s",
            name,
            name,
        )

    def _shut_down(self, plugin: LoadedPlugin) -> None:
        if plugin.started:
            plugin.started = False
            self.hooks.set_ready(plugin.info.name, False)
            if plugin.periodic is not None and not plugin.periodic.stop():
                log.warning("plugin '%s' is still in periodic; going on without it", plugin.info.name)
            try:
                self.hooks.call_one(plugin.module, "shutdown")
            except BaseException:
                log.exception("plugin '%s' failed in shutdown", plugin.info.name)


def _new(candidate: Candidate) -> LoadedPlugin:
    info = PluginInfo(
        candidate.name, candidate.source, candidate.location, candidate.version, candidate.explicit
    )
    return LoadedPlugin(candidate, info, discovery.content_of(candidate))


def _is_same(plugin: LoadedPlugin, candidate: Candidate) -> bool:
    is_there = plugin.candidate.location == candidate.location
    return is_there and plugin.content == discovery.content_of(candidate)
