"""What the server reports of a layer: touches and evictions."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from atlas_plugin import facts

PRIORITY_LIMIT = 1 << facts.PRIORITY_BITS
"""Priorities are smaller than this, up and down: the server adds as much to them."""


class Kind(IntEnum):
    """What an entry holds. Only blocks have children."""

    BLOCK = facts.KIND_BLOCK
    TAIL = facts.KIND_TAIL
    CHECKPOINT = facts.KIND_CHECKPOINT


class Strategy(IntEnum):
    """The `cache_strategy` of the request that touched an entry."""

    LRU = facts.STRATEGY_LRU
    LFU = facts.STRATEGY_LFU
    ADAPTIVE = facts.STRATEGY_ADAPTIVE


class Touch(NamedTuple):
    """A request used or made an entry. A request's touches follow each other, deepest entry first."""

    key: int
    """Uniform over 1 … 2^64 - 1."""
    parent: int
    """The key of the block before it; 0 at a root."""
    now: int
    """The layer's clock, which counts touches: larger in each touch than in the one before."""
    size: int
    """Bytes, at least 1."""
    kind: int
    """A `Kind`."""
    strategy: int
    """A `Strategy`."""
    saving: float
    """Seconds to compute it less seconds to restore it; not above 0 where restoring does not pay."""


class Eviction(NamedTuple):
    """An entry left the layer, for lack of room or for another reason."""

    key: int
    priority: int
    """What it had."""
    now: int
    """The layer's clock."""


def split_requests(touches: Sequence[Touch]) -> Iterator[Sequence[Touch]]:
    """The touches of one request after the other.

    A touch belongs to the same request as the one before when it is its parent, or has the same parent.
    """
    start, expected = 0, 0
    for position, touch in enumerate(touches):
        if touch[0] != expected and (not expected or touch[1] != expected) and position:
            yield touches[start:position]
            start = position
        expected = touch[1]
    if touches:
        yield touches[start:]
