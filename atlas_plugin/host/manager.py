"""The plugins of a server: the set that serves, and putting another in its place."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from atlas_plugin import facts
from atlas_plugin.errors import PluginError, ValidationError
from atlas_plugin.hookspecs import PluginInfo, Plugins, StatusReport
from atlas_plugin.host import discovery
from atlas_plugin.host.hook_workers import CallWorkers, HookCalls
from atlas_plugin.host.hooks import Hooks
from atlas_plugin.host.host import Host, ServerHost
from atlas_plugin.host.plugin_set import LoadedPlugin, PluginSet
from atlas_plugin.host.request_hooks import HookTable
from atlas_plugin.host.tier_calls import Brought, TierCalls, TierTable
from atlas_plugin.host.worker import Worker
from atlas_plugin.metrics.families import Family
from atlas_plugin.routing import Router

log = logging.getLogger("atlas")

_P = TypeVar("_P")

_LOOK_S = 1.0
"""How often files are looked at."""
_RETIRE_S = 60.0
"""For how long requests that began with plugins from before may keep these from their shutdown."""
_POLL_S = 0.05


@dataclass(frozen=True)
class Reloaded:
    """The names of plugins that were loaded anew or for the first time, and of those that are gone."""

    loaded: tuple[str, ...]
    removed: tuple[str, ...]


class PluginManager:
    """All plugins of a server. Any thread may call all but `start`, `join_requests` and `stop`."""

    def __init__(self) -> None:
        self._set = PluginSet()
        self._host: ServerHost | None = None
        self._builtins: Mapping[str, object] = {}
        self._tables: dict[int, HookTable] = {}
        self._n_tables = 0
        self._workers: CallWorkers | None = None
        self._tier_tables: dict[int, TierTable] = {}
        self._tier_workers: CallWorkers | None = None
        self._tallies: Callable[[], list[dict[str, Any]]] = list
        self._reloading = threading.Lock()
        self._retiring: list[tuple[PluginSet, list[LoadedPlugin]]] = []
        self._watch: Worker | None = None
        self._seen: object = None
        self._reload_problem: str | None = None

    @property
    def router(self) -> Router:
        """The routes of the plugins that serve now."""
        return self._set.router

    @property
    def hooks(self) -> Hooks:
        """The hooks of the plugins that serve now."""
        return self._set.hooks

    def start(self, host: ServerHost, builtins: Mapping[str, object]) -> None:
        """Load and start those given, then those that the settings name. One that fails is recorded so."""
        self._host, self._builtins = host, builtins
        self._fill(self._set)

    def join_requests(self) -> None:
        """Have the server ask the hooks that plugins have on the path of requests; after `start`."""
        host = self._of_server()
        self._tallies = host.hook_tallies
        self._set_table(host)
        if host.settings().flag("reload_plugins"):
            self._seen = self._look_at_files()
            self._watch = Worker("atlas-reload", self._look)
            self._watch.start()

    @contextmanager
    def serving(self) -> Iterator[Router]:
        """The routes for one request, whose plugins are not shut down before its end."""
        while True:
            entered = self._set
            with entered.lock:
                entered.running += 1
            if entered is self._set:
                break
            with entered.lock:
                entered.running -= 1
        try:
            yield entered.router
        finally:
            with entered.lock:
                entered.running -= 1

    def reload(self) -> Reloaded:
        """Load plugins from files that changed or are new, and have the new set serve from now on.

        Requests that go on end with the plugins that they began with; then those that are gone are shut down.
        Raises ValidationError where a plugin fails, which changes nothing.
        """
        host = self._of_server()
        with self._reloading:
            before, after = self._set, PluginSet(self._set)
            try:
                self._fill(after)
                if failed := after.newly_failed():
                    raise PluginError(failed[0].name, f"plugin '{failed[0].name}' failed: {failed[0].error}")
            except BaseException as error:
                after.shut_down(after.fresh())
                self._reload_problem = f"the plugins were not loaded anew: {error}"
                log.error("%s; those from before go on", self._reload_problem)
                raise ValidationError(f"{error}; the plugins from before go on") from None
            self._set, self._reload_problem = after, None
            table = self._set_table(host)
            gone = [plugin for plugin in before.plugins if plugin not in after.plugins and plugin.started]
            if gone:
                self._retiring.append((before, gone))
                threading.Thread(
                    target=self._retire, args=(before, table), name="atlas-retire", daemon=True
                ).start()
            names = {plugin.info.name for plugin in after.plugins}
            result = Reloaded(
                tuple(plugin.info.name for plugin in after.fresh() if plugin.started),
                tuple(plugin.info.name for plugin in before.plugins if plugin.info.name not in names),
            )
            log.info(
                "plugins loaded anew: %s; gone: %s",
                ", ".join(result.loaded) or "none",
                ", ".join(result.removed) or "none",
            )
            return result

    def stop(self) -> None:
        """Run `shutdown` of each plugin that was started, in reverse order; what it raises is logged."""
        if self._watch is not None:
            self._watch.stop()
        with self._reloading:
            for plugins, gone in self._retiring:
                plugins.shut_down(gone)
            self._retiring.clear()
            self._set.shut_down(self._set.active())

    def tiers(self) -> list[Brought]:
        """The tiers of the memory that the plugins bring that serve now."""
        current = self._set
        fresh = current.fresh()
        return [
            Brought(plugin.info.name, tier, plugin in fresh)
            for plugin in current.active()
            for tier in plugin.tiers
        ]

    def infos(self) -> list[PluginInfo]:
        """Every plugin found, in load order."""
        tallies, current = self._tallies(), self._set
        return [
            replace(
                info,
                hook_failures=current.hooks.failures(info.name),
                request_hooks=tuple(self._on_path(info.name, tallies)),
                tiers=tuple(self._tiers(info.name, tallies)),
            )
            if info.hooks
            else info
            for info in (plugin.info for plugin in current.plugins)
        ]

    @property
    def failed(self) -> list[PluginInfo]:
        """The plugins that were asked for and are not running."""
        return [info for info in self.infos() if info.state == "failed"]

    @property
    def failing(self) -> list[str]:
        """A sentence for each hook that failed when it was last asked."""
        current = self._set
        return [
            f"plugin '{plugin.info.name}' fails in {hook}: {why}"
            for plugin in current.active()
            for hook, why in current.hooks.failing(plugin.info.name).items()
        ]

    def reports(self) -> list[StatusReport]:
        """What the plugins say about themselves now."""
        reports: list[StatusReport] = self.hooks.ask.report_status()
        return reports

    def metrics(self) -> list[Family]:
        """What the plugins add to the metrics now."""
        current = self._set
        reported = current.hooks.ask.report_metrics()
        return [*current.metrics(), *(family for families in reported for family in families)]

    def problems(self, reports: Iterable[StatusReport]) -> list[str]:
        """A sentence for each thing that is wrong now; `reports` are those of `reports()`."""
        failed = (f"plugin '{info.name}' failed: {info.error}" for info in self.failed)
        off = (
            f"plugin '{one['plugin']}' is off in {_what(one)}: it missed too many deadlines in a row; "
            f"POST /v1/atlas/plugins/{one['plugin']}/enable turns it on"
            for one in self._tallies()
            if one["is_off"]
        )
        anew = [self._reload_problem] if self._reload_problem else []
        reported = (problem for report in reports for problem in report.problems)
        return [*failed, *self.failing, *off, *anew, *reported]

    def _of_server(self) -> ServerHost:
        assert self._host is not None, "start was not called"
        return self._host

    def _fill(self, plugins: PluginSet) -> None:
        host = self._of_server()
        plugins.load(host.settings(), self._builtins)
        plugins.start(
            _narrowed(cast(Host, host), Host),
            cast(Plugins, _narrowed(self, Plugins)),
            host.status().get("config_file"),
        )

    def _set_table(self, host: ServerHost) -> int:
        """The number of the table before."""
        deadline_ms = host.settings().integer("hook_deadline_ms")
        before, self._n_tables = self._n_tables, self._n_tables + 1
        table = HookTable(self.hooks, self._n_tables, deadline_ms)
        self._tables[table.number] = table
        if rows := table.rows():
            host.set_request_hooks(table.number, rows)
            if self._workers is None:
                calls = HookCalls(host, self._tables)
                self._workers = CallWorkers(host, facts.QUEUE_REQUESTS, "hook", calls.serve)
                self._workers.start()
        elif before:
            host.set_request_hooks(table.number, rows)
        self._set_tiers(host, table.number)
        return before

    def _set_tiers(self, host: ServerHost, number: int) -> None:
        brought = self.tiers()
        if not brought and not self._tier_tables:
            return
        table = self._tier_tables[number] = TierTable(self.hooks, number, brought)
        if self._tier_workers is None:
            calls = TierCalls(host, self._tier_tables)
            self._tier_workers = CallWorkers(host, facts.QUEUE_TIERS, "tier", calls.serve)
            self._tier_workers.start()
        if not host.set_tiers(number, table.rows()) and brought:
            log.warning("the tiers of plugins are not used: this server has no memory of conversations")

    def _retire(self, plugins: PluginSet, table: int) -> None:
        """Shut down what is gone of a set, once no request goes on with it."""
        host = self._of_server()
        deadline = time.monotonic() + _RETIRE_S
        while (plugins.running or table in host.hook_tables()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        with self._reloading:
            for entry in [entry for entry in self._retiring if entry[0] is plugins]:
                self._retiring.remove(entry)
                plugins.shut_down(entry[1])
            self._tables.pop(table, None)
            self._tier_tables.pop(table, None)

    def _look(self) -> float:
        seen = self._look_at_files()
        if seen != self._seen:
            # Whoever writes a file may not be done yet.
            time.sleep(_POLL_S)
            if seen == self._look_at_files():
                self._seen = seen
                # The log and the status say it.
                with suppress(ValidationError):
                    self.reload()
        return _LOOK_S

    def _look_at_files(self) -> object:
        candidates = discovery.find(self._of_server().settings(), {})
        return [(one.location, discovery.content_of(one)) for one in candidates if one.source == "file"]

    def _on_path(self, name: str, tallies: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        table = self._tables.get(self._n_tables)
        for row in table.of_plugin(name) if table else ():
            tally = (one for one in tallies if one["plugin"] == name and one["hook"] == row["hook"])
            yield {**row, **next(tally, {})}

    def _tiers(self, name: str, tallies: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        table = self._tier_tables.get(self._n_tables)
        for row in table.of_plugin(name) if table else ():
            tally = (one for one in tallies if one["plugin"] == name and one.get("tier") == row["name"])
            known = ("hook", "plugin", "tier")
            yield {**row, **{key: value for key, value in next(tally, {}).items() if key not in known}}


def _what(tally: Mapping[str, Any]) -> str:
    return f"tier '{tally['tier']}'" if "tier" in tally else str(tally["hook"])


def _narrowed(whole: _P, protocol: type) -> _P:
    """What plugins get of an object: the names of a protocol, and no other."""

    class Narrowed:
        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or not hasattr(protocol, name):
                raise AttributeError(f"{protocol.__name__} has no '{name}'; docs/plugins.md says what it has")
            return getattr(whole, name)

    return cast(_P, Narrowed())
