"""GET /v1/atlas/plugins, POST /v1/atlas/plugins/reload and /v1/atlas/plugins/{name}/enable."""

from dataclasses import dataclass
from typing import Any

from atlas_plugin.errors import Forbidden, NotFoundError, ValidationError
from atlas_plugin.hookspecs import Plugins, hookimpl
from atlas_plugin.host.manager import Reloaded
from atlas_plugin.host.services import Services
from atlas_plugin.http import Request, require_admin
from atlas_plugin.openapi import Success
from atlas_plugin.routing import Routes


@dataclass(frozen=True)
class AllPlugins:
    """Every plugin: name, source, location, version, state, error, routes, hooks and their failures."""

    plugins: list[dict[str, Any]]


@dataclass(frozen=True)
class EnabledPlugin:
    """Whether any of the plugin's hooks was off."""

    was_off: bool


class PluginsPlugin:
    """Lists the plugins, those that failed or are disabled too, and turns their hooks on again."""

    def __init__(self, services: Services) -> None:
        self._host = services.host
        self._manager = services.plugins

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
        routes.post(
            "/v1/atlas/plugins/{name}/enable",
            guard=lambda request: require_admin(request, "turn a plugin's hooks on"),
            summary="Turn on a plugin's hooks that are off",
            answer=Success[EnabledPlugin],
            errors=(Forbidden, NotFoundError),
        )(self._enable)
        routes.post(
            "/v1/atlas/plugins/reload",
            guard=lambda request: require_admin(request, "load plugins anew"),
            summary="Load plugins anew whose files changed, came or went",
            answer=Success[Reloaded],
            errors=(Forbidden, ValidationError),
        )(self._reload)

    def _list(self, request: Request) -> dict[str, Any]:
        return {"status": "success", "data": {"plugins": self._plugins.infos()}}

    def _enable(self, request: Request) -> dict[str, Any]:
        name = request.path_params["name"]
        if not any(info.name == name and info.state == "active" for info in self._plugins.infos()):
            raise NotFoundError(f"there is no active plugin '{name}'")
        return {"status": "success", "data": {"was_off": self._host.enable_hooks(name)}}

    def _reload(self, request: Request) -> dict[str, Any]:
        return {"status": "success", "data": self._manager.reload()}
