"""Responses in the background, as far as they are kept: their end, and what clients ask of them."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from atlas_plugin.builtin.memory import MemoryPlugin
from atlas_plugin.errors import AtlasError, NotFoundError, ServerError, ValidationError
from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host.worker import Worker
from atlas_plugin.http import Request, Response
from atlas_plugin.responses.unfinished import fail_abandoned, is_unfinished, settled, status_of
from atlas_plugin.routing import Routes
from atlas_plugin.storage.responses import Kept, ResponseStore
from atlas_plugin.storage.running_servers import RunningServers

log = logging.getLogger("atlas")

_LOOK_S = 60.0
_MAX_ID = 128


class BackgroundPlugin:
    """Uses the database of the plugin `memory`, which has to start before."""

    def __init__(self, memory: MemoryPlugin) -> None:
        self._memory = memory
        self._servers: RunningServers | None = None
        self._worker = Worker("atlas-background", self._look)

    @hookimpl
    def startup(self) -> None:
        if not self._memory.is_running:
            return
        self._servers = RunningServers(self._memory.database().path.parent)
        with suppress(AtlasError, OSError):  # the worker tries again, and says what is wrong
            self._look()
        self._worker.start()

    @hookimpl
    def shutdown(self) -> None:
        self._worker.stop()

    @hookimpl
    def report_status(self) -> StatusReport:
        problem = self._worker.problem
        return StatusReport({}, [f"unfinished responses are not ended: {problem}"] if problem else [])

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        routes.post(
            "/v1/responses/{response_id}/cancel",
            summary="Cancel a response in the background",
            answer=dict[str, Any],
            errors=(NotFoundError, ValidationError),
        )(self._cancel)

    def server_of(self, response: Mapping[str, Any]) -> str | None:
        """The name of this server where it is still to make the response. Raises ServerError."""
        if self._servers is None or not is_unfinished(response):
            return None
        try:
            return self._servers.own_name()
        except OSError as error:
            raise ServerError(f"the server's lock under the memory path cannot be made: {error}") from None

    def get(self, tenant: str, response_id: str) -> Kept:
        """A response that the server does not make now. Raises AtlasError, as NotFoundError."""
        database = self._memory.database()
        if self._servers is None:
            return ResponseStore(database).get(tenant, response_id)
        try:
            return settled(database, self._servers, tenant, response_id)
        except OSError as error:
            raise ServerError(f"whether its server runs is not known: {error}") from None

    def _cancel(self, request: Request) -> Response:
        # The server has ended it before, where it made it: what is left to do is to say how it ended.
        kept = self.get(request.tenant, request.path_params["response_id"][:_MAX_ID])
        status = status_of(kept.response)
        if not status.background:
            raise ValidationError("only background responses can be cancelled", "response_id")
        check_finished(kept)
        return Response(body=kept.response, content_type="application/json; charset=utf-8")

    def _look(self) -> float:
        if self._servers is not None and (n := fail_abandoned(self._memory.database(), self._servers)):
            log.warning("%d responses in the background failed, as their server was stopped", n)
        return _LOOK_S


def check_finished(kept: Kept) -> None:
    """Raise ValidationError where another server makes it."""
    if is_unfinished(kept.response):
        raise ValidationError("another server makes this response: ask that one", "response_id")
