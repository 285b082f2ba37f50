"""POST /v1/atlas/memory/{save,load,list,delete}: JSON contexts over HTTP."""

import logging
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from atlas_plugin.contexts import ContextStore
from atlas_plugin.errors import (
    AtlasError,
    NotFoundError,
    PayloadTooLarge,
    ServerError,
    UnavailableError,
    ValidationError,
)
from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host import Host
from atlas_plugin.http import Request
from atlas_plugin.routing import Routes
from atlas_plugin.settings import Settings

log = logging.getLogger("atlas")

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
# What a request may hold besides the state: the id, names, white space.
BODY_ALLOWANCE = 64 * 1024

_CONTEXT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Fields = Mapping[str, Any]


class MemoryPlugin:
    """Keeps one store open while the server runs. The limits are those of the start."""

    def __init__(self) -> None:
        self._store: ContextStore | None = None
        self._off = ""
        self._max_state_bytes = 0
        self._limit_name = ""
        # An operation, and the fields that it takes.
        self._operations: dict[str, tuple[Callable[[Fields], dict[str, Any]], Collection[str]]] = {
            "save": (self._save, ("context_id", "state")),
            "load": (self._load, ("context_id",)),
            "list": (self._list, ("limit", "cursor")),
            "delete": (self._delete, ("context_id",)),
        }

    @hookimpl
    def startup(self, host: Host) -> None:
        settings = host.settings()
        self._max_state_bytes = settings.integer("max_state_bytes")
        self._limit_name = settings.switches("max_state_bytes")
        self._off = _why_off(settings)
        if self._off:
            log.info("%s", self._off)
            return
        self._store = ContextStore(Path(settings.text("memory_save_path")))
        try:
            self._store.open()
        except AtlasError as error:
            # The server runs on without it, and the next request tries again.
            log.error("%s", error.message)

    @hookimpl
    def shutdown(self) -> None:
        if self._store is not None:
            self._store.close()

    @hookimpl
    def report_status(self) -> StatusReport:
        problem = None if self._store is None else self._store.problem()
        usable = self._store is not None and problem is None
        return StatusReport({"memory_persistence": usable}, () if problem is None else (problem,))

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        routes.post("/v1/atlas/memory/{operation}")(self._answer)

    def _answer(self, request: Request) -> dict[str, Any]:
        name = request.path_params["operation"]
        if name not in self._operations:
            raise NotFoundError(
                f"no memory operation '{name}': the operations are {', '.join(self._operations)}"
            )
        operation, known = self._operations[name]
        if len(request.body) > self._max_state_bytes + BODY_ALLOWANCE:
            raise self._too_large(f"the request body has {len(request.body)} bytes")
        fields = request.json_object() if request.body else {}
        for field in fields:
            if field not in known:
                raise ValidationError(f"there is no such field; {name} takes {', '.join(known)}", field)
        try:
            return {"status": "success", "data": operation(fields)}
        except ServerError as error:
            log.error("%s", error.message)
            raise

    def _save(self, fields: Fields) -> dict[str, Any]:
        context_id, state = _context_id(fields), fields.get("state")
        if not isinstance(state, dict):
            raise ValidationError("must be a JSON object", "state")
        try:
            data = orjson.dumps(state)
        except orjson.JSONEncodeError as error:
            raise ValidationError(f"cannot be stored: {error}", "state") from None
        if len(data) > self._max_state_bytes:
            raise self._too_large(f"the state has {len(data)} bytes")
        return asdict(self._opened().save(context_id, data))

    def _load(self, fields: Fields) -> dict[str, Any]:
        context_id = _context_id(fields)
        found = self._opened().load(context_id)
        if found is None:
            raise _not_found(context_id)
        info, state = found
        # Already JSON: parsing it only to serialise it again would take time and the GIL.
        return {**asdict(info), "state": orjson.Fragment(state)}

    def _list(self, fields: Fields) -> dict[str, Any]:
        limit = fields.get("limit", DEFAULT_LIMIT)
        if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
            raise ValidationError(f"value must be a whole number from 1 to {MAX_LIMIT}", "limit")
        contexts = self._opened().page(limit + 1, _decode_cursor(fields.get("cursor")))
        more = len(contexts) > limit
        return {
            "contexts": contexts[:limit],
            "next_cursor": _encode_cursor(contexts[limit - 1].context_id) if more else None,
        }

    def _delete(self, fields: Fields) -> dict[str, Any]:
        context_id = _context_id(fields)
        if not self._opened().delete(context_id):
            raise _not_found(context_id)
        return {"context_id": context_id}

    def _opened(self) -> ContextStore:
        if self._store is None:
            raise UnavailableError(self._off)
        return self._store

    def _too_large(self, what: str) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"{what}; the limit for a state is {self._max_state_bytes} bytes, set by {self._limit_name}"
        )


def _why_off(settings: Settings) -> str:
    if not settings.flag("enable_memory_persistence"):
        return f"memory persistence is off: turn it on with {settings.switches('enable_memory_persistence')}"
    if not settings.text("memory_save_path"):
        entry = settings.entry("memory_save_path")
        return f"memory persistence is off: start the server with {entry['flag']} DIR or set {entry['env']}"
    return ""


def _context_id(fields: Fields) -> str:
    value = fields.get("context_id")
    if not isinstance(value, str) or not _CONTEXT_ID.fullmatch(value):
        raise ValidationError("value must be 1 to 128 characters of A-Z a-z 0-9 . _ : -", "context_id")
    return value


def _not_found(context_id: str) -> NotFoundError:
    return NotFoundError(f"no context '{context_id}'")


def _encode_cursor(context_id: str) -> str:
    return urlsafe_b64encode(context_id.encode()).decode()


def _decode_cursor(cursor: object) -> str:
    if cursor is None:
        return ""
    if isinstance(cursor, str):
        with suppress(ValueError):
            context_id = urlsafe_b64decode(cursor).decode()
            if _CONTEXT_ID.fullmatch(context_id):
                return context_id
    raise ValidationError("value must be the next_cursor of an earlier answer", "cursor")
