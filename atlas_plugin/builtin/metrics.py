"""GET /v1/atlas/metrics, live and for Prometheus too: numbers of all tenants together, and no names."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NotRequired, TypedDict

from atlas_plugin import facts
from atlas_plugin.errors import UnavailableError, ValidationError
from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host.services import Services
from atlas_plugin.http import Request, Response, StreamResponse
from atlas_plugin.metrics.families import Family
from atlas_plugin.metrics.python_side import python_families
from atlas_plugin.metrics.readings import Counters, Current, HistoryEntry, count
from atlas_plugin.metrics.sampler import Sampler
from atlas_plugin.metrics.stream import EventStream
from atlas_plugin.openapi import Success
from atlas_plugin.routing import Routes

MIN_INTERVAL_MS = 10
MAX_INTERVAL_MS = 3_600_000
_PATH = "/v1/atlas/metrics"
_EXPOSITION = "atlas_plugin.metrics.exposition"


class Metrics(TypedDict):
    """Now, and how many samples `?history=1` has; `server_health` is true while the status is healthy."""

    current: Current
    history_size: int
    server_health: bool
    history: NotRequired[list[HistoryEntry]]


class MetricsPlugin:
    """What the server measures: now, live, and for Prometheus."""

    def __init__(self, services: Services) -> None:
        self._host = services.host
        self._plugins = services.plugins
        self._own_families = services.families
        self._running: Sampler | None = None
        self._off = ""

    @hookimpl
    def startup(self) -> None:
        self._off = self._host.status()["in_effect"]["metrics_off"] or ""
        if self._off:
            return
        self._running = Sampler(self._count, *self._sampling())
        self._running.start()
        # It would make the first scrape late. On a thread of its own it could meet a plugin that imports
        # the same package, and Python then gives one of the two half a module.
        import_module(_EXPOSITION)

    @hookimpl
    def reload(self, changed: Mapping[str, Any]) -> None:
        if self._running is not None and changed.keys() & {
            "metrics_update_interval_ms",
            "metrics_history_size",
        }:
            self._running.change(*self._sampling())

    @hookimpl
    def report_status(self) -> StatusReport | None:
        problem = self._running and self._running.problem
        return StatusReport(problems=[f"metrics are not sampled: {problem}"]) if problem else None

    @hookimpl
    def shutdown(self) -> None:
        if self._running is not None:
            self._running.stop()

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        off = (UnavailableError,)
        routes.get(
            _PATH,
            summary="Requests, latencies and cache hits; ?history=1 adds the last samples",
            answer=Success[Metrics],
            errors=(ValidationError, *off),
        )(self._show)
        routes.get(
            f"{_PATH}/stream",
            summary="The same live, an event each ?interval= milliseconds",
            answer="text/event-stream",
            errors=(ValidationError, *off),
        )(self._stream)
        routes.get(
            facts.ROUTE_METRICS,
            summary="All metrics for Prometheus: text 0.0.4, or OpenMetrics where Accept asks for it",
            answer="text/plain",
            errors=off,
        )(self._expose)

    def _show(self, request: Request) -> dict[str, Any]:
        wanted = request.query.get("history", "0")
        if wanted not in ("0", "1"):
            raise ValidationError("value must be 0 or 1", "history")
        sampler = self._sampler
        history = sampler.history()
        data: dict[str, Any] = {
            "current": sampler.read().current,
            "history_size": len(history),
            "server_health": not self._plugins.problems(self._plugins.reports()),
        }
        if wanted == "1":
            data["history"] = [reading.history_entry() for reading in history]
        return {"status": "success", "data": data}

    def _stream(self, request: Request) -> StreamResponse:
        sampler = self._sampler
        given = request.query.get("interval")
        usual_s = self._sampling()[0]
        interval_s = usual_s if given is None else _interval_s(given)
        if not request.is_admin:
            interval_s = max(interval_s, usual_s)  # more samples cost all who use Python
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamResponse(EventStream(sampler.subscribe(interval_s)), headers=headers)

    def _expose(self, request: Request) -> Response:
        # The server puts its own families first, and waits a moment only for these.
        from atlas_plugin.metrics.exposition import expose

        python = python_families(self._plugins, self._sampler)
        plugins = list(self._plugins.metrics())
        taken: set[str] = set()
        if any(family.name.startswith("atlas_") for family in plugins):
            taken = {family.name for family in self._host.metrics()}
        families: dict[str, Family] = {}
        # Of a name that a plugin takes, too, the server's family counts.
        for family in (*python, *self._own_families(), *plugins):
            if family.name not in taken:
                families.setdefault(family.name, family)
        text, content_type = expose(families.values(), request.headers.get("accept", ""))
        return Response(body=text, content_type=content_type)

    @property
    def _sampler(self) -> Sampler:
        if self._running is None:
            raise UnavailableError(self._off)
        return self._running

    def _sampling(self) -> tuple[float, int]:
        settings = self._host.settings()
        interval_ms = settings.integer("metrics_update_interval_ms")
        return interval_ms / 1000, settings.integer("metrics_history_size")

    def _count(self) -> Counters:
        return count(self._host.metrics())


def _interval_s(text: str) -> float:
    interval_ms = int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0
    if not MIN_INTERVAL_MS <= interval_ms <= MAX_INTERVAL_MS:
        raise ValidationError(
            f"value must be an integer between {MIN_INTERVAL_MS} and {MAX_INTERVAL_MS}", "interval"
        )
    return interval_ms / 1000
