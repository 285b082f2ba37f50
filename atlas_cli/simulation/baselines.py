"""Orders to compare with, that a server does not offer."""

from collections.abc import Iterable, Sequence

from atlas_cli.simulation.trace import TraceRequest
from atlas_plugin.eviction.records import Eviction, Touch

_DEPTHS = 1 << 24


class ClassicLfu:
    """The entry touched least often goes first, whenever that was; of equal ones, the least recently used."""

    def __init__(self) -> None:
        self._touches: dict[int, int] = {}

    def touch(self, touches: Sequence[Touch]) -> list[int]:
        counts = self._touches
        priorities = []
        for touch in touches:
            counts[touch.key] = count = counts.get(touch.key, 0) + 1
            priorities.append((count << 40) + touch.now)
        return priorities

    def evicted(self, evictions: Iterable[Eviction]) -> None:
        for eviction in evictions:
            del self._touches[eviction.key]


class Belady:
    """Knows the future: the entry needed last, or never, goes first, even the one that was just made.

    No order of whole blocks has more hits. `requests` are those that `touch` is called for, in order.
    """

    def __init__(self, requests: Sequence[TraceRequest]) -> None:
        self._next: list[list[int]] = []
        following: dict[int, int] = {}
        for number in range(len(requests) - 1, -1, -1):
            keys = requests[number].keys
            self._next.append([following.get(key, len(requests)) for key in keys])
            following.update(dict.fromkeys(keys, number))

    def touch(self, touches: Sequence[Touch]) -> list[int]:
        # Of entries needed by the same request, the deepest goes first: it stands first in `touches`.
        following = reversed(self._next.pop())
        return [height - number * _DEPTHS for height, number in enumerate(following)]

    def evicted(self, evictions: Iterable[Eviction]) -> None:
        pass
