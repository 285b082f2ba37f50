"""POST /v1/atlas/memory/{save,load,list,delete,pin,unpin}: saved contexts and sessions over HTTP."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from atlas_plugin.errors import AtlasError, ServerError, UnavailableError
from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host.host import ServerCall, ServerHost
from atlas_plugin.host.manager import PluginManager
from atlas_plugin.host.services import Services
from atlas_plugin.http import Request
from atlas_plugin.memory.api import OPERATIONS, AnyBody
from atlas_plugin.memory.conversations import Conversations
from atlas_plugin.memory.keeper import SessionKeeper
from atlas_plugin.memory.limits import Limits
from atlas_plugin.memory.operations import MemoryOperations
from atlas_plugin.memory.record_store import RecordStore
from atlas_plugin.memory.recorder import Recorder
from atlas_plugin.memory.shared_names import SharedNames
from atlas_plugin.memory.shared_sessions import SharedSessions
from atlas_plugin.metrics.families import Family, Sample
from atlas_plugin.openapi import success_of
from atlas_plugin.routing import Routes
from atlas_plugin.storage.conversations import ConversationStore
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.sealing import Sealing
from atlas_plugin.storage.sessions import SessionStore
from atlas_plugin.storage.shared_turns import SharedTurns

log = logging.getLogger("atlas")


class MemoryPlugin:
    """Keeps one database open while the server runs."""

    def __init__(self, services: Services) -> None:
        self._host = services.host
        self._calls = services.calls
        self._plugins = services.plugins
        self._off = "the memory plugin has not started"
        self._parts: _Parts | None = None

    @hookimpl
    def startup(self) -> None:
        self._off = self._host.status()["in_effect"]["saving_off"] or ""
        if self._off:
            log.info("%s", self._off)
        else:
            self._parts = _Parts(self._host, self._plugins)
        answer = self._calls.answer
        answer(ServerCall.HISTORY, self._answer_history)
        answer(ServerCall.RECORD, lambda argument: self._running().recorder.answer_record(argument))
        answer(ServerCall.SYNC, self._answer_sync)

    @hookimpl
    def shutdown(self) -> None:
        if self._parts is not None:
            self._parts.keeper.stop()
            self._parts.database.close()

    @hookimpl
    def reload(self, changed: Mapping[str, Any]) -> None:
        if self._parts is not None:
            self._parts.limits.reload()

    @hookimpl
    def report_status(self) -> StatusReport:
        if self._parts is None:
            return StatusReport({"memory_persistence": False})
        database, keeper = self._parts.database, self._parts.keeper
        problem = database.problem()
        data = {
            "memory_persistence": problem is None,
            "sessions": {
                "written": keeper.written,
                "expired": keeper.expired,
                "failures": keeper.failures,
                "recorded": self._parts.recorder.recorded,
                "shared": self._parts.shared_status(),
            },
        }
        late = keeper.problem and f"what sessions did and said is not saved yet: {keeper.problem}"
        disk = self._parts.disk_problem()
        shared = self._parts.shared_problem()
        problems = (problem, database.damage, database.not_sealed, late, disk, shared)
        return StatusReport(data, [text for text in problems if text])

    @hookimpl
    def report_metrics(self) -> list[Family] | None:
        return None if self._parts is None else self._parts.families()

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        for operation in OPERATIONS:
            routes.add(
                "POST",
                f"/v1/atlas/memory/{operation.name}",
                partial(self._answer, operation.name),
                body=operation.body,
                guard=self.check_size,
                summary=operation.summary,
                answer=success_of(operation.answer),
                errors=operation.errors,
            )

    @property
    def is_running(self) -> bool:
        """Whether things are saved; from `startup` on."""
        return self._parts is not None

    def database(self) -> Database:
        """The one that all is saved in. Raises UnavailableError where nothing is."""
        return self._running().database

    @property
    def conversations(self) -> Conversations:
        """Those that are kept. Raises UnavailableError where nothing is."""
        return self._running().conversations

    def check_size(self, request: Request) -> None:
        """Raise PayloadTooLarge for a body that cannot be right; UnavailableError where nothing is saved."""
        self._running().operations.check_size(len(request.body))

    def forget(self, session_id: str) -> None:
        """Remove a session, if there is one, and the KV that only it uses."""
        self._running().keeper.forget(session_id)

    def _running(self) -> "_Parts":
        if self._parts is None:
            raise UnavailableError(self._off)
        return self._parts

    def _answer_history(self, argument: Mapping[str, Any]) -> dict[str, Any]:
        parts = self._running()
        of_conversation = "references" in argument
        return (parts.conversations if of_conversation else parts.recorder).answer_history(argument)

    def _answer_sync(self, argument: Mapping[str, Any]) -> dict[str, Any]:
        if self._parts is not None:
            keeper = self._parts.keeper
            keeper.share() if argument.get("shared") else keeper.sync()
        return {}

    def _answer(self, name: str, request: Request, body: AnyBody) -> dict[str, Any]:
        try:
            return {"status": "success", "data": self._running().operations.perform(name, request, body)}
        except ServerError as error:
            log.error("%s", error.message)
            raise


class _Parts:
    """What there is while things are saved."""

    def __init__(self, host: ServerHost, plugins: PluginManager) -> None:
        self._host = host
        is_encrypted = host.status()["in_effect"]["encrypted"]
        sealing = Sealing(host if is_encrypted else None)
        self.database = Database(Path(host.settings().text("memory_save_path")), sealing)
        try:
            self.database.open()
        except AtlasError as error:
            # The server runs on without it, and the next request tries again.
            log.error("%s", error.message)
        self.limits = Limits(host)
        records, turns = RecordStore(host), SharedTurns(self.database)
        self.shared = SharedSessions(records, turns, self.limits, lambda name: self.keeper.end_here(name))
        names = SharedNames(records, self.database, turns, lambda name: self.keeper.end_here(name))
        conversations = ConversationStore(self.database)
        self.recorder = Recorder(host, conversations, self.limits, self.shared, names)
        off = host.status()["in_effect"]["conversations_off"] or ""
        store = SessionStore(self.database)
        self.keeper = SessionKeeper(
            host, lambda: plugins.hooks, store, self.limits, self.recorder, self.shared, names, off
        )
        self.operations = MemoryOperations(
            host, self.database, self.limits, self.keeper, self.recorder, names
        )
        self.conversations = Conversations(
            self.database, self.limits, self.keeper, self.recorder, self.shared, names
        )
        self.keeper.start()

    def shared_status(self) -> Mapping[str, Any] | None:
        """What the status says of sessions that servers share."""
        try:
            return self.shared.status()
        except AtlasError as error:
            return {"problem": error.message}

    def shared_problem(self) -> str | None:
        """A sentence where turns wait for what servers share, or something there is damaged."""
        status = self.shared_status()
        if status is None:
            return None
        if status.get("waiting"):
            why = f": {status['problem']}" if status["problem"] else ""
            return f"{status['waiting']} exchanges of sessions are recorded here and not shared yet{why}"
        return None

    def disk_problem(self) -> str | None:
        """Why the memory's layer 2 does not work now, or None."""
        disk = (self._host.status().get("memory") or {}).get("disk") or {}
        return disk.get("problem") and f"the memory on disk does not work: {disk['problem']}"

    def families(self) -> list[Family]:
        """What the metrics say of the database."""
        keeper = self.keeper
        return [
            Family(
                "atlas_sessions_stored", "gauge", "Sessions in the database.", [Sample(value=keeper.stored)]
            ),
            Family(
                "atlas_sessions_expired_total",
                "counter",
                "Sessions ended as idle for too long, or as too many.",
                [Sample(value=keeper.expired)],
            ),
            Family(
                "atlas_session_save_failures_total",
                "counter",
                "Failures to save what sessions did and said; it is tried again.",
                [Sample(value=keeper.failures)],
            ),
            *self._shared_families(),
        ]

    def _shared_families(self) -> list[Family]:
        status = self.shared_status()
        if status is None or "waiting" not in status:
            return []
        turns = [
            Sample({"from": name}, status[key]) for name, key in (("here", "shared"), ("others", "taken"))
        ]
        return [
            Family(
                "atlas_shared_sessions_up",
                "gauge",
                "1 where the store of sessions that servers share works, 0 where it does not.",
                [Sample(value=int(status["problem"] is None))],
            ),
            Family(
                "atlas_shared_turns_waiting",
                "gauge",
                "Exchanges that are recorded here and that other servers do not have.",
                [Sample(value=status["waiting"])],
            ),
            Family(
                "atlas_shared_turns_total",
                "counter",
                "Exchanges that other servers were told, and that they told.",
                turns,
            ),
            Family(
                "atlas_shared_turns_contested_total",
                "counter",
                "Exchanges that came behind one that another server recorded at the same moment.",
                [Sample(value=status["contested"])],
            ),
            Family(
                "atlas_shared_records_damaged_total",
                "counter",
                "Documents of sessions that are not what a server of this fleet wrote.",
                [Sample(value=status["damaged"])],
            ),
        ]
