"""The messages of vLLM's `vllm/distributed/kv_events.py`, in MessagePack."""

import time
from collections.abc import Callable, Sequence

import msgspec

from atlas_plugin.storage.memory_records import BlockChange

MEDIUMS = {1: "CPU", 2: "DISK"}
"""vLLM's names for where a block is, by layer."""


class BlockStored(msgspec.Struct, tag=True):
    """Blocks that came into a medium, each the continuation of the one before it."""

    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None


class BlockRemoved(msgspec.Struct, tag=True):
    """Blocks that left a medium."""

    block_hashes: list[int]
    medium: str | None


class AllBlocksCleared(msgspec.Struct, tag=True):
    """What was told before is void."""


Event = BlockStored | BlockRemoved | AllBlocksCleared


class Batch(msgspec.Struct):
    """What one message holds, as a map."""

    ts: float
    """Seconds since 1970."""
    events: Sequence[Event]
    data_parallel_rank: int = 0


_encode = msgspec.msgpack.Encoder().encode


def as_maps(events: Sequence[Event]) -> bytes:
    """The payload of a message: an array, each event a map with its name under `type`."""
    return _encode([time.time(), events, 0])


def as_arrays(events: Sequence[Event]) -> bytes:
    """The same, but each event is an array of its fields, its name in front."""
    rows = [[type(event).__name__, *msgspec.structs.astuple(event)] for event in events]
    return _encode([time.time(), rows, 0])


def as_all_maps(events: Sequence[Event]) -> bytes:
    """As `as_maps`, but the whole is a map, too."""
    return _encode(Batch(time.time(), events))


FORMATS: dict[str, Callable[[Sequence[Event]], bytes]] = {
    "maps": as_maps,
    "arrays": as_arrays,
    "all-maps": as_all_maps,
}


def event_of(change: BlockChange) -> Event:
    """What is told of one change."""
    medium = MEDIUMS[change.layer]
    if not change.is_stored:
        return BlockRemoved([change.key], medium)
    tokens = list(change.tokens)
    return BlockStored([change.key], change.parent or None, tokens, len(tokens), None, medium, None)
