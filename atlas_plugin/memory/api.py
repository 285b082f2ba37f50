"""The operations under /v1/atlas/memory/: what they take and what they answer."""

from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from atlas_plugin import facts
from atlas_plugin.bodies import value_must_be
from atlas_plugin.errors import AtlasError, Forbidden, NotFoundError, PayloadTooLarge, UnavailableError
from atlas_plugin.storage.documents import ContextInfo

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100

# Without the look-ahead, Python's `$` lets a line feed pass.
ID_PATTERN = facts.ID_PATTERN.replace("$", r"(?!\n)$")
Id = Annotated[str, value_must_be(facts.ID_RULE, pattern=ID_PATTERN)]
JsonObject = Annotated[dict[str, Any], value_must_be("a JSON object")]


class AnyBody(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What every operation takes."""

    model: Annotated[str, Meta(description="for a router, which asks the server of that model")] = ""


class MemoryBody(AnyBody, frozen=True, kw_only=True):
    """What every operation on names takes."""

    tenant: (
        Annotated[
            str,
            value_must_be(
                f"{facts.TENANT_DIGITS} hexadecimal digits, or empty for what belongs to no tenant; "
                "for the admin only",
                pattern=rf"^([0-9a-f]{{{facts.TENANT_DIGITS}}})?(?!\n)$",
            ),
        ]
        | UnsetType
    ) = UNSET

    @property
    def wanted_tenant(self) -> str | None:
        """The tenant asked for, where there is one."""
        return None if self.tenant is UNSET else self.tenant


class SaveBody(MemoryBody, frozen=True, kw_only=True):
    context_id: Id
    state: JsonObject


class NameBody(MemoryBody, frozen=True, kw_only=True):
    context_id: Id


class ListBody(MemoryBody, frozen=True, kw_only=True):
    limit: Annotated[int, value_must_be(f"a whole number from 1 to {MAX_LIMIT}", ge=1, le=MAX_LIMIT)] = (
        DEFAULT_LIMIT
    )
    cursor: Annotated[str | None, value_must_be("the next_cursor of an earlier answer")] = None


class PinBody(MemoryBody, frozen=True, kw_only=True):
    """One of the two, which mean the same."""

    json_schema = {"oneOf": [{"required": ["session_id"]}, {"required": ["context_id"]}]}

    session_id: Id | UnsetType = UNSET
    context_id: Id | UnsetType = UNSET


class FlushBody(AnyBody, frozen=True, kw_only=True):
    timeout_s: Annotated[float, Meta(gt=0, le=facts.MAX_FLUSH_S)] | UnsetType = UNSET


@dataclass(frozen=True)
class SessionInfo:
    """A session of the server: tokens and bytes of its KV state, and times in seconds since 1970."""

    tokens: int
    bytes: int
    ram_bytes: int
    disk_bytes: int
    layers: list[int]
    created_at: float
    last_used_at: float
    pinned: bool


@dataclass(frozen=True)
class SessionRecord(SessionInfo):
    """A session, and the messages that the server recorded of it, oldest first."""

    conversation_history: list[dict[str, Any]]


@dataclass(frozen=True)
class Loaded:
    """What goes by a name. Size and times are those of the saved state, null where none was saved."""

    context_id: str
    bytes: int | None
    created: float | None
    updated: float | None
    state: JsonObject
    session: SessionRecord | None


@dataclass(frozen=True)
class ListEntry:
    """A name in a list; `tenant` is there where it belongs to one, which only the admin sees."""

    context_id: str
    bytes: int | None
    created: float | None
    updated: float | None
    session: SessionInfo | None
    tenant: str = ""


@dataclass(frozen=True)
class ListPage:
    """Names in their order; `next_cursor` is null on the last page."""

    contexts: list[ListEntry]
    next_cursor: str | None


@dataclass(frozen=True)
class Deleted:
    """What was removed."""

    context_id: str
    freed_bytes: int


@dataclass(frozen=True)
class Pinned:
    """What a session is now."""

    session_id: str
    pinned: bool


@dataclass(frozen=True)
class Flushed:
    """How much became durable."""

    entries: int
    bytes: int


@dataclass(frozen=True)
class MemoryOperation:
    """One of them; its name is the last segment of its path."""

    name: str
    summary: str
    body: type[AnyBody]
    answer: Any
    errors: tuple[type[AtlasError], ...]


_COMMON = (Forbidden, PayloadTooLarge, UnavailableError)
_NAMED = (*_COMMON, NotFoundError)

OPERATIONS = (
    MemoryOperation("save", "Save a JSON state; it is durable once answered", SaveBody, ContextInfo, _COMMON),
    MemoryOperation("load", "Load a saved state and what a session said", NameBody, Loaded, _NAMED),
    MemoryOperation("list", "List saved contexts and sessions", ListBody, ListPage, _COMMON),
    MemoryOperation("delete", "Delete a saved context and a session", NameBody, Deleted, _NAMED),
    MemoryOperation("pin", "Keep a session's state after all others", PinBody, Pinned, _NAMED),
    MemoryOperation("unpin", "Take a pin back", PinBody, Pinned, _NAMED),
)
FLUSH = MemoryOperation("flush", "Wait until all is durable", FlushBody, Flushed, (UnavailableError,))
"""Answered by the server itself, without Python."""
