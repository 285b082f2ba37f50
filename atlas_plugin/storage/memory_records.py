"""What the server says of its memory, and how `atlas-abi.h` packs it."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, NamedTuple

from atlas_plugin import facts
from atlas_plugin.eviction.records import Eviction, Touch

EVENT = Struct(facts.EVENT_LAYOUT)
"""An `atlas_memory_event`, with the fields that facts.EVENT_FIELDS names."""


class SavedEntry(NamedTuple):
    """An entry whose file became durable."""

    key: int
    parent: int
    size: int
    """Bytes of its file."""
    kind: int
    seconds: float
    """That writing it took."""
    n_tokens: int
    """That it adds to its parent's."""


class MemoryEvents(NamedTuple):
    """What happened to the entries of the memory since the last time, in the order in which it did."""

    touches: Sequence[Touch] = ()
    """Of all layers: each of them may have the entry or take it."""
    evictions: Mapping[int, Sequence[Eviction]] = {}
    """By layer."""
    saved: Sequence[SavedEntry] = ()
    """Where they were asked for."""

    @property
    def total(self) -> int:
        """Of all together; facts.MAX_EVENTS when more may be waiting."""
        return len(self.touches) + sum(map(len, self.evictions.values())) + len(self.saved)


class BlockChange(NamedTuple):
    """A block that came into a layer, or left it."""

    is_stored: bool
    layer: int
    key: int
    parent: int
    """Of the block before it; 0 where there is none, or it left."""
    tokens: Sequence[int]
    """Where it is stored: its own."""


class BlockChanges(NamedTuple):
    """Those since the last time, in order.

    A block may be told twice, and one may leave that was never told.
    """

    changes: Sequence[BlockChange] = ()
    anew: bool = False
    """What was told before is void, and all that is there follows."""
    more: bool = False
    """There are more: ask again."""


def unpack_events(data: bytes) -> MemoryEvents:
    """The events of an array of `atlas_memory_event`."""
    touches: list[Touch] = []
    evictions: dict[int, list[Eviction]] = {}
    saved: list[SavedEntry] = []
    for key, parent, now, priority, size, seconds, what, layer, kind, strategy, n_tokens in EVENT.iter_unpack(
        data
    ):
        if what == facts.EVENT_TOUCHED:
            touches.append(Touch(key, parent, now, size, kind, strategy, seconds))
        elif what == facts.EVENT_SAVED:
            saved.append(SavedEntry(key, parent, size, kind, seconds, n_tokens))
        else:
            evictions.setdefault(layer, []).append(Eviction(key, priority, now))
    gone = {layer: tuple(some) for layer, some in evictions.items()}
    return MemoryEvents(tuple(touches), gone, tuple(saved))


def pack_order(layer: int, priorities: Sequence[int]) -> bytes:
    """The argument of MEMORY_ORDER. Raises OverflowError for a priority of more than 64 bits."""
    return array("q", [layer, *priorities]).tobytes()


@dataclass(frozen=True)
class Session:
    """A session as the server has it now."""

    session_id: str
    version: int
    """Larger after each change of any session; starts anew with the server."""
    tokens: int
    chain: Sequence[str]
    """The keys of its entries, 64 hexadecimal digits each, first to last."""
    last_used: float
    """Seconds since 1970."""
    pinned: bool
    ram_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Conversation:
    """What a session's record is to be from now on: JSON messages, oldest first."""

    session_id: str
    messages: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class SessionEdit:
    """What became of an edit: whether there is such a session, the bytes that `forget` removed, and why a pin
    was refused."""

    found: bool
    bytes: int = 0
    problem: str | None = None


def session_of(document: Mapping[str, Any]) -> Session:
    """A session of the answer to SESSIONS."""
    return Session(**{name: document[name] for name in Session.__dataclass_fields__})
