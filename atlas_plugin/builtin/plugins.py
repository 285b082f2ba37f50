"""GET /v1/atlas/plugins."""

from dataclasses import dataclass
from typing import Any

from atlas_plugin.errors import Forbidden
from atlas_plugin.hookspecs import Plugins, hookimpl
from atlas_plugin.http import Request, require_admin
from atlas_plugin.openapi import Success
from atlas_plugin.routing import Routes


@dataclass(frozen=True)
class AllPlugins:
    """Every plugin: name, source, location, version, state, error, routes, hooks and their failures."""

    plugins: list[dict[str, Any]]


class PluginsPlugin:
    """Lists the plugins, those that failed or are disabled too."""

    @hookimpl
    def startup(self, plugins: Plugins) -> None:
        self._plugins = plugins

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        routes.get(
            "/v1/atlas/plugins",
            guard=lambda request: require_admin(request, "see the plugins"),
            summary="All plugins, failed ones too",
            answer=Success[AllPlugins],
            errors=(Forbidden,),
        )(self._list)

    def _list(self, request: Request) -> dict[str, Any]:
        return {"status": "success", "data": {"plugins": self._plugins.infos()}}
