"""What the operations under /v1/atlas/memory/ do with the fields of a request."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import orjson

from atlas_plugin import listing
from atlas_plugin.builtin.sessions import SessionKeeper
from atlas_plugin.builtin.switches import why_no_conversations
from atlas_plugin.contexts import ContextStore
from atlas_plugin.database import Database
from atlas_plugin.errors import NotFoundError, PayloadTooLarge, UnavailableError, ValidationError
from atlas_plugin.host import Host
from atlas_plugin.memory_records import Session
from atlas_plugin.sessions import SessionStore
from atlas_plugin.settings import Settings

OPERATIONS: Mapping[str, Sequence[str]] = {
    "save": ("context_id", "state"),
    "load": ("context_id",),
    "list": ("limit", "cursor"),
    "delete": ("context_id",),
    "pin": ("session_id", "context_id"),
    "unpin": ("session_id", "context_id"),
}
"""The fields that each takes."""

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
# What a request may hold besides the state: the id, names, white space.
BODY_ALLOWANCE = 64 * 1024

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Fields = Mapping[str, Any]


class MemoryOperations:
    """The operations over a database and, where the server keeps conversations, their sessions."""

    def __init__(
        self, host: Host, settings: Settings, database: Database, keeper: SessionKeeper | None
    ) -> None:
        self._host = host
        self._database = database
        self._contexts = ContextStore(database)
        self._keeper = keeper
        self._no_sessions = why_no_conversations(settings)
        self._max_state_bytes = settings.integer("max_state_bytes")
        self._limit_name = settings.switches("max_state_bytes")

    def check_size(self, body_bytes: int) -> None:
        """Raise PayloadTooLarge for a body that cannot be right, before it is parsed."""
        if body_bytes > self._max_state_bytes + BODY_ALLOWANCE:
            raise self._too_large(f"the request body has {body_bytes} bytes")

    def perform(self, name: str, fields: Fields) -> dict[str, Any]:
        """The answer to one of OPERATIONS."""
        operations: dict[str, Callable[[Fields], dict[str, Any]]] = {
            "save": self._save,
            "load": self._load,
            "list": self._list,
            "delete": self._delete,
            "pin": lambda fields: self._pin(fields, pinned=True),
            "unpin": lambda fields: self._pin(fields, pinned=False),
        }
        return operations[name](fields)

    def _save(self, fields: Fields) -> dict[str, Any]:
        context_id, state = _id(fields, "context_id"), fields.get("state")
        if not isinstance(state, dict):
            raise ValidationError("must be a JSON object", "state")
        try:
            data = orjson.dumps(state)
        except orjson.JSONEncodeError as error:
            raise ValidationError(f"cannot be stored: {error}", "state") from None
        if len(data) > self._max_state_bytes:
            raise self._too_large(f"the state has {len(data)} bytes")
        return asdict(self._contexts.save(context_id, data))

    def _load(self, fields: Fields) -> dict[str, Any]:
        context_id = _id(fields, "context_id")
        found = self._contexts.load(context_id)
        if found is None:
            raise NotFoundError(f"no context '{context_id}'")
        info, state = found
        # Already JSON: parsing it only to serialise it again would take time and the GIL.
        return {**asdict(info), "state": orjson.Fragment(state)}

    def _list(self, fields: Fields) -> dict[str, Any]:
        limit = fields.get("limit", DEFAULT_LIMIT)
        if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
            raise ValidationError(f"value must be a whole number from 1 to {MAX_LIMIT}", "limit")
        after = _decode_cursor(fields.get("cursor"))
        live: dict[str, Session] = {}
        if self._keeper is not None:
            self._keeper.sync()
        names = listing.page(self._database, limit + 1, after)
        more, names = len(names) > limit, names[:limit]
        ids = [name.context_id for name in names if name.session is not None]
        if self._keeper is not None and ids:
            live = {session.session_id: session for session in self._host.sessions(ids=ids)}
        return {
            "contexts": [
                {**asdict(name), "session": _describe(name.session, live.get(name.context_id))}
                for name in names
            ],
            "next_cursor": _encode_cursor(names[-1].context_id) if more else None,
        }

    def _delete(self, fields: Fields) -> dict[str, Any]:
        context_id = _id(fields, "context_id")
        freed = [self._contexts.delete(context_id), self._forget_session(context_id)]
        found = [size for size in freed if size is not None]
        if not found:
            raise NotFoundError(f"no context '{context_id}'")
        return {"context_id": context_id, "freed_bytes": sum(found)}

    def _forget_session(self, session_id: str) -> int | None:
        if self._keeper is not None:
            return self._keeper.forget(session_id)
        return 0 if SessionStore(self._database).delete([session_id]) else None

    def _pin(self, fields: Fields, *, pinned: bool) -> dict[str, Any]:
        if "session_id" in fields and "context_id" in fields:
            raise ValidationError("it is another name of session_id: give one of them", "context_id")
        session_id = _id(fields, "context_id" if "context_id" in fields else "session_id")
        if self._keeper is None:
            raise UnavailableError(self._no_sessions)
        edit = self._keeper.pin(session_id, pinned)
        if not edit.found:
            raise NotFoundError(f"no session '{session_id}'")
        if edit.problem is not None:
            raise PayloadTooLarge(edit.problem)
        return {"session_id": session_id, "pinned": pinned}

    def _too_large(self, what: str) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"{what}; the limit for a state is {self._max_state_bytes} bytes, set by {self._limit_name}"
        )


def _describe(row: listing.ListedSession | None, live: Session | None) -> dict[str, Any] | None:
    if row is None:
        return None
    sizes = {1: live.ram_bytes, 2: live.disk_bytes} if live is not None else {}
    return {
        "tokens": row.tokens,
        "bytes": sum(sizes.values()),
        "ram_bytes": sizes.get(1, 0),
        "disk_bytes": sizes.get(2, 0),
        "layers": [layer for layer, size in sizes.items() if size],
        "created_at": row.created_at,
        "last_used_at": row.last_used,
        "pinned": row.pinned,
    }


def _id(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ValidationError("value must be 1 to 128 characters of A-Z a-z 0-9 . _ : -", name)
    return value


def _encode_cursor(context_id: str) -> str:
    return urlsafe_b64encode(context_id.encode()).decode()


def _decode_cursor(cursor: object) -> str:
    if cursor is None:
        return ""
    if isinstance(cursor, str):
        with suppress(ValueError):
            context_id = urlsafe_b64decode(cursor).decode()
            if _ID.fullmatch(context_id):
                return context_id
    raise ValidationError("value must be the next_cursor of an earlier answer", "cursor")
