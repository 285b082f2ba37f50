"""GET /v1/atlas/openapi.json."""

from typing import Any

from atlas_plugin import facts, openapi
from atlas_plugin.hookspecs import hookimpl
from atlas_plugin.host.services import Services
from atlas_plugin.http import Request
from atlas_plugin.memory.api import FLUSH
from atlas_plugin.openapi import success_of
from atlas_plugin.routing import Operation, Routes

_FLUSH = Operation(
    method="POST",
    path=facts.ROUTE_FLUSH,
    plugin="memory",
    body=FLUSH.body,
    summary=FLUSH.summary,
    answer=success_of(FLUSH.answer),
    errors=FLUSH.errors,
)


class OpenApiPlugin:
    """Describes every route, those of plugins too, and the `atlas` object of completions."""

    def __init__(self, services: Services) -> None:
        self._host = services.host
        self._plugins = services.plugins

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        path, summary = "/v1/atlas/openapi.json", "This description"
        routes.get(path, summary=summary, answer=dict[str, Any])(self._describe)

    def _describe(self, request: Request) -> dict[str, Any]:
        return openapi.describe([*self._plugins.router.routes, _FLUSH], self._host.request_schema())
