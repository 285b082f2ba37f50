"""POST /v1/atlas/memory/{save,load,list,delete,pin,unpin}: saved contexts and sessions over HTTP."""

import logging
from pathlib import Path
from typing import Any

from atlas_plugin.builtin.memory_operations import OPERATIONS, MemoryOperations
from atlas_plugin.builtin.sessions import SessionKeeper
from atlas_plugin.builtin.switches import why_no_conversations, why_nothing_is_saved
from atlas_plugin.database import Database
from atlas_plugin.errors import AtlasError, NotFoundError, ServerError, UnavailableError, ValidationError
from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host import Host
from atlas_plugin.http import Request
from atlas_plugin.routing import Routes
from atlas_plugin.sessions import SessionStore

log = logging.getLogger("atlas")


class MemoryPlugin:
    """Keeps one database open while the server runs. The limits are those of the start."""

    def __init__(self) -> None:
        self._off = ""
        self._database: Database | None = None
        self._keeper: SessionKeeper | None = None
        self._operations: MemoryOperations | None = None

    @hookimpl
    def startup(self, host: Host) -> None:
        settings = host.settings()
        self._off = why_nothing_is_saved(settings)
        if self._off:
            log.info("%s", self._off)
            return
        self._database = Database(Path(settings.text("memory_save_path")))
        try:
            self._database.open()
        except AtlasError as error:
            # The server runs on without it, and the next request tries again.
            log.error("%s", error.message)
        if not why_no_conversations(settings):
            self._keeper = SessionKeeper(host, SessionStore(self._database), settings.number("session_ttl_s"))
            self._keeper.start()
        self._operations = MemoryOperations(host, settings, self._database, self._keeper)

    @hookimpl
    def shutdown(self) -> None:
        if self._keeper is not None:
            self._keeper.stop()
        if self._database is not None:
            self._database.close()

    @hookimpl
    def report_status(self) -> StatusReport:
        problem = None if self._database is None else self._database.problem()
        data: dict[str, Any] = {"memory_persistence": self._database is not None and problem is None}
        if self._keeper is not None:
            data["sessions"] = {
                "written": self._keeper.written,
                "expired": self._keeper.expired,
                "failures": self._keeper.failures,
            }
        return StatusReport(data, () if problem is None else (problem,))

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        routes.post("/v1/atlas/memory/{operation}")(self._answer)

    def _answer(self, request: Request) -> dict[str, Any]:
        name = request.path_params["operation"]
        if name not in OPERATIONS:
            raise NotFoundError(f"no memory operation '{name}': the operations are {', '.join(OPERATIONS)}")
        if self._operations is None:
            raise UnavailableError(self._off)
        self._operations.check_size(len(request.body))
        fields = request.json_object() if request.body else {}
        known = OPERATIONS[name]
        for field in fields:
            if field not in known:
                raise ValidationError(f"there is no such field; {name} takes {', '.join(known)}", field)
        try:
            return {"status": "success", "data": self._operations.perform(name, fields)}
        except ServerError as error:
            log.error("%s", error.message)
            raise
