"""What the operations under /v1/atlas/memory/ do with a body that is valid."""

import logging
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import msgspec
from msgspec import UNSET

from atlas_plugin import facts, json_text
from atlas_plugin.errors import AtlasError, NotFoundError, PayloadTooLarge, UnavailableError, ValidationError
from atlas_plugin.host.host import Host
from atlas_plugin.http import Request
from atlas_plugin.memory.api import (
    ID_PATTERN,
    AnyBody,
    ListBody,
    MemoryBody,
    NameBody,
    PinBody,
    SaveBody,
    SessionInfo,
)
from atlas_plugin.memory.keeper import SessionKeeper
from atlas_plugin.memory.limits import Limits
from atlas_plugin.memory.record_store import StoreError
from atlas_plugin.memory.recorder import Recorder
from atlas_plugin.memory.shared_names import SharedNames
from atlas_plugin.memory.tenants import full_name, split_name, tenant_of, tenant_to_list
from atlas_plugin.storage import listing
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.documents import DocumentStore
from atlas_plugin.storage.memory_records import Session

log = logging.getLogger("atlas")

# What a request may hold besides the state: the id, names, white space.
BODY_ALLOWANCE = 64 * 1024

_FULL_NAME = re.compile(rf"([0-9a-f]{{{facts.TENANT_DIGITS}}}/)?{ID_PATTERN.strip('^$')}")


class MemoryOperations:
    """The operations over a database, its sessions, and what they say. Names are full names inside."""

    def __init__(
        self,
        host: Host,
        database: Database,
        limits: Limits,
        keeper: SessionKeeper,
        recorder: Recorder,
        names: SharedNames,
    ) -> None:
        self._host = host
        self._database = database
        self._documents = DocumentStore(database)
        self._limits = limits
        self._keeper = keeper
        self._recorder = recorder
        self._names = names

    def check_size(self, body_bytes: int) -> None:
        """Raise PayloadTooLarge for a body that cannot be right, before it is parsed."""
        if body_bytes > self._limits.max_state_bytes + BODY_ALLOWANCE:
            raise self._too_large(f"the request body has {body_bytes} bytes")

    def perform(self, name: str, request: Request, body: AnyBody) -> dict[str, Any]:
        """The answer of an operation; `body` is of the type that the operation takes."""
        match name, body:
            case "save", SaveBody():
                return self._save(request, body)
            case "load", NameBody():
                return self._load(request, body)
            case "list", ListBody():
                return self._list(request, body)
            case "delete", NameBody():
                return self._delete(request, body)
            case "pin" | "unpin", PinBody():
                return self._pin(request, body, name == "pin")
        raise TypeError(f"{name} does not take a {type(body).__name__}")

    def _save(self, request: Request, body: SaveBody) -> dict[str, Any]:
        name = _full(request, body, body.context_id)
        try:
            data = json_text.encode(body.state)
        except TypeError as error:
            raise ValidationError(f"cannot be stored: {error}", "state") from None
        if len(data) > self._limits.max_state_bytes:
            raise self._too_large(f"the state has {len(data)} bytes")
        saved = self._documents.save(name, data)
        log.info("Memory state saved for session: %s", name)
        return {**asdict(saved), "context_id": body.context_id}

    def _load(self, request: Request, body: NameBody) -> dict[str, Any]:
        name = _full(request, body, body.context_id)
        # A disk that cannot be written can still be read; the keeper's thread tries again and reports.
        with suppress(AtlasError):
            self._keeper.sync_session(name)
        self._recorder.refresh(name)
        saved = self._documents.load(name)
        session = self._describe(listing.find_session(self._database, name), self._live([name]).get(name))
        if saved is None and session is None:
            raise NotFoundError(f"no context '{body.context_id}'")
        history = self._recorder.history(name)
        info: dict[str, Any] = {"bytes": None, "created": None, "updated": None}
        state: Any = {"conversation_history": history, "user_preferences": {}, "context_memory": {}}
        if saved is not None:
            # Already JSON: parsing it only to serialise it again would take time and the GIL.
            info, state = asdict(saved[0]), msgspec.Raw(saved[1])
        if session is not None:
            session["conversation_history"] = history
        return {**info, "context_id": body.context_id, "state": state, "session": session}

    def _list(self, request: Request, body: ListBody) -> dict[str, Any]:
        tenant = tenant_to_list(request, body.wanted_tenant)
        after = _decode_cursor(body.cursor, tenant)
        with suppress(AtlasError):
            self._keeper.sync_rows()
        names = self._page(body.limit + 1, after, tenant)
        more, names = len(names) > body.limit, names[: body.limit]
        live = self._live([name.context_id for name in names if name.session is not None])
        return {
            "contexts": [self._entry(name, live.get(name.context_id), tenant) for name in names],
            "next_cursor": _encode_cursor(names[-1].context_id, tenant) if more else None,
        }

    def _page(self, limit: int, after: str, tenant: str | None) -> list[listing.Listed]:
        """Names in order. Where what servers share does not work, those that are known here."""
        with suppress(StoreError):
            if not after:
                self._names.refresh()
            page = listing.page(self._database, limit, after, tenant)
            self._names.describe([one.context_id for one in page if one.session is not None])
        return listing.page(self._database, limit, after, tenant)

    def _entry(self, name: listing.Listed, live: Session | None, listed: str | None) -> dict[str, Any]:
        tenant, context_id = split_name(name.context_id)
        owner = {"tenant": tenant} if tenant and listed is None else {}
        session = self._describe(name.session, live)
        return {**asdict(name), "context_id": context_id, "session": session, **owner}

    def _delete(self, request: Request, body: NameBody) -> dict[str, Any]:
        name = _full(request, body, body.context_id)
        freed = [self._documents.delete(name), self._keeper.forget(name)]
        found = [size for size in freed if size is not None]
        if not found:
            raise NotFoundError(f"no context '{body.context_id}'")
        return {"context_id": body.context_id, "freed_bytes": sum(found)}

    def _pin(self, request: Request, body: PinBody, pinned: bool) -> dict[str, Any]:
        if body.session_id is not UNSET and body.context_id is not UNSET:
            raise ValidationError("it is another name of session_id: give one of them", "context_id")
        session_id = body.context_id if body.session_id is UNSET else body.session_id
        if session_id is UNSET:
            raise ValidationError("it is missing: name the session", "session_id")
        name = _full(request, body, session_id)
        if self._keeper.off:
            raise UnavailableError(self._keeper.off)
        edit = self._keeper.pin(name, pinned)
        if not edit.found:
            raise NotFoundError(f"no session '{session_id}'")
        if edit.problem is not None:
            raise PayloadTooLarge(edit.problem)
        return {"session_id": session_id, "pinned": pinned}

    def _live(self, names: list[str]) -> Mapping[str, Session]:
        if self._keeper.off or not names:
            return {}
        return {session.session_id: session for session in self._host.sessions(ids=names)}

    def _describe(self, row: listing.ListedSession | None, live: Session | None) -> dict[str, Any] | None:
        if row is None:
            return None
        sizes = {1: live.ram_bytes, 2: live.disk_bytes} if live is not None else {}
        info = SessionInfo(
            tokens=row.tokens,
            bytes=sum(sizes.values()),
            ram_bytes=sizes.get(1, 0),
            disk_bytes=sizes.get(2, 0),
            layers=[layer for layer, size in sizes.items() if size],
            created_at=row.created_at,
            last_used_at=row.last_used,
            pinned=row.pinned,
        )
        return asdict(info)

    def _too_large(self, what: str) -> PayloadTooLarge:
        limit, switches = self._limits.max_state_bytes, self._limits.state_switches
        return PayloadTooLarge(f"{what}; the limit for a state is {limit} bytes, set by {switches}")


def _full(request: Request, body: MemoryBody, name: str) -> str:
    return full_name(tenant_of(request, body.wanted_tenant), name)


def _encode_cursor(full: str, tenant: str | None) -> str:
    # A tenant's cursor says nothing of the tenant, and another's would be read as its own.
    name = full if tenant is None else split_name(full)[1]
    return urlsafe_b64encode(name.encode()).decode()


def _decode_cursor(cursor: str | None, tenant: str | None) -> str:
    if cursor is None:
        return ""
    with suppress(ValueError):
        name = urlsafe_b64decode(cursor).decode()
        if _FULL_NAME.fullmatch(name) and (tenant is None or "/" not in name):
            return full_name(tenant or "", name)
    raise ValidationError("value must be the next_cursor of an earlier answer", "cursor")
