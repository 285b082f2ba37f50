"""The Python half of the server: from start to stop, one request at a time or many at once."""

import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace

from atlas_plugin import json_text
from atlas_plugin.errors import AtlasError, PluginError, ServerError, UnavailableError, ValidationError
from atlas_plugin.hookspecs import PluginInfo
from atlas_plugin.host import host_logging
from atlas_plugin.host.host import ServerHost
from atlas_plugin.host.manager import PluginManager
from atlas_plugin.host.services import Builtins, ServerCalls, Services
from atlas_plugin.http import Request, Response, StreamResponse, to_response
from atlas_plugin.metrics.families import Family
from atlas_plugin.routing import PREFIX

log = logging.getLogger("atlas")


class Application:
    """Plugins over a host. `handle` may be called from any thread between `start` and `stop`.

    `builtins` makes the plugins that come with ATLAS; `families` are metrics of who made the application.
    """

    def __init__(
        self, host: ServerHost, builtins: Builtins, families: Callable[[], Iterable[Family]] = tuple
    ) -> None:
        self.plugins = PluginManager()
        self._host = host
        self._calls = ServerCalls()
        self._builtins = builtins(Services(host, self.plugins, self._calls, families))
        self._running = False

    def start(self) -> None:
        """Load and start the plugins. Raises PluginError when one that the settings require fails."""
        settings = self._host.settings()
        host_logging.install(self._host)
        self.plugins.start(self._host, self._builtins)
        required = [info for info in self.plugins.failed if info.explicit]
        if required and settings.flag("require_python"):
            self.plugins.stop()
            raise PluginError(required[0].name, _refusal(required, settings.switches("require_python")))
        self.plugins.join_requests()
        self._running = True
        names = ", ".join(info.name for info in self.plugins.infos() if info.state == "active")
        log.info("plugins active: %s", names or "none")

    def handle(self, request: Request) -> Response | StreamResponse:
        """The answer to a request; whatever goes wrong is an answer too."""
        try:
            if not self._running:
                raise UnavailableError("the server is shutting down")
            with self.plugins.serving() as router:
                route, parameters = router.match(request.method, request.path)
                return to_response(route.handler(replace(request, path_params=parameters)))
        except AtlasError as error:
            return _error_response(error, request.path)
        except BaseException:
            return _error_response(_unexpected(f"{request.method} {request.path}"), request.path)

    def call(self, what: int, argument: bytes) -> bytes:
        """The JSON that answers ATLAS_CALL_… number `what`. Raises AtlasError, whatever goes wrong."""
        try:
            if not self._running:
                raise UnavailableError("the server is shutting down")
            return json_text.encode(self._calls.ask(what, json_text.decode(argument)))
        except AtlasError:
            raise
        except BaseException:
            raise _unexpected(f"call {what} of the server") from None

    def stop(self) -> None:
        """Refuse further requests and run the shutdown hooks. A second call does nothing."""
        if self._running:
            self._running = False
            self.plugins.stop()


def _error_response(error: AtlasError, path: str) -> Response:
    body = error.to_body()
    # Clients of OpenAI's API look for it there; what /v1/atlas answers is settled.
    if isinstance(error, ValidationError) and error.field and not path.startswith(PREFIX):
        body["error"]["param"] = error.field
    return Response(status=error.status, body=body, headers=error.headers)


def _unexpected(what: str) -> ServerError:
    reference = secrets.token_hex(4)
    log.exception("%s failed (reference %s)", what, reference)
    return ServerError(f"Internal server error (reference {reference})")


def _refusal(failed: Iterable[PluginInfo], switches: str) -> str:
    reasons = "; ".join(f"plugin '{info.name}' failed: {info.error}" for info in failed)
    return f"{reasons}. Repair or remove what is named, or do not set {switches}"
