"""GET /v1/atlas/config."""

from typing import Any

from atlas_plugin.hookspecs import hookimpl
from atlas_plugin.host import Host
from atlas_plugin.http import Request
from atlas_plugin.routing import Routes


class ConfigPlugin:
    """Shows the settings in effect and where each came from."""

    @hookimpl
    def startup(self, host: Host) -> None:
        self._host = host

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        routes.get("/v1/atlas/config")(self._config)

    def _config(self, request: Request) -> dict[str, Any]:
        return {"status": "success", "data": {"settings": self._host.settings().redacted()}}
