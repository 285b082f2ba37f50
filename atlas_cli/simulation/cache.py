"""A layer without data: evicts leaf first by the priorities of a policy."""

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

from atlas_plugin.eviction.records import Eviction, Touch


class Policy(Protocol):
    """What a layer asks for priorities."""

    def touch(self, touches: Sequence[Touch]) -> list[int]: ...

    def evicted(self, evictions: Iterable[Eviction]) -> None: ...


class _Entry:
    __slots__ = ("children", "parent", "priority", "size")

    def __init__(self, parent: int, size: int) -> None:
        self.parent = parent
        self.size = size
        self.children = 0
        self.priority = 0


class SimulatedLayer:
    """Entries of a layer of `capacity` bytes, which `policy` orders."""

    def __init__(self, policy: Policy, capacity: int) -> None:
        self.policy = policy
        self.capacity = capacity
        self.bytes = 0
        self._entries: dict[int, _Entry] = {}
        self._leaves: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: int) -> bool:
        return key in self._entries

    def request(self, touches: Sequence[Touch]) -> None:
        """Touch the entries of a request, deepest first, and evict what is over the capacity then."""
        entries, leaves = self._entries, self._leaves
        priorities = self.policy.touch(touches)
        touched = []
        for touch, priority in zip(reversed(touches), reversed(priorities), strict=True):
            key = touch[0]
            entry = entries.get(key)
            if entry is None:
                parent = touch[1]
                entry = entries[key] = _Entry(parent, touch[3])
                self.bytes += touch[3]
                if parent in entries:
                    entries[parent].children += 1
            entry.priority = priority
            touched.append((key, entry))
        for key, entry in touched:
            if not entry.children:
                heappush(leaves, (entry.priority, key))
        if self.bytes > self.capacity:
            self.policy.evicted(self._evict(touches[-1].now))
        if len(leaves) > 4 * len(entries) + 1024:
            leaves[:] = [(entry.priority, key) for key, entry in entries.items() if not entry.children]
            heapify(leaves)

    def _evict(self, now: int) -> list[Eviction]:
        entries, leaves = self._entries, self._leaves
        evictions = []
        while self.bytes > self.capacity:
            priority, key = heappop(leaves)
            entry = entries.get(key)
            if entry is None or entry.priority != priority or entry.children:
                continue
            del entries[key]
            self.bytes -= entry.size
            evictions.append(Eviction(key, priority, now))
            parent = entries.get(entry.parent)
            if parent is not None:
                parent.children -= 1
                if not parent.children:
                    heappush(leaves, (parent.priority, entry.parent))
        return evictions
