"""Priorities of the entries of one tier, under all strategies."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from atlas_plugin.eviction import state
from atlas_plugin.eviction.directory import CACHED, GHOST, NO_CLASS, UNTRACKED, Directory
from atlas_plugin.eviction.plan import Flows, band_of, make_plan
from atlas_plugin.eviction.records import Eviction, Strategy, Touch, split_requests
from atlas_plugin.eviction.survival import (
    BUCKETS,
    CLASS_OF,
    CLASSES,
    EDGES,
    MAX_HORIZON,
    PERIOD,
    Cohort,
    LifeTable,
)
from atlas_plugin.facts import MAX_LFU_TOUCHES

MAX_BRANCHES = 3
"""Below a block with more continuations than this, each new one is a conversation of its own."""
EARLY_SHARE = 0.1
"""The share of evictions that may come before the grace is over; if it is larger the plan is too full."""
MIN_FILL, MAX_FILL = 0.8, 1.1
"""How much of the capacity the plan may give away. The rest is for what the plan did not foresee."""
_MAX_TOUCHES = 255


@dataclass(slots=True)
class _Tally:
    """Numbers that survive a restart. The sums fade, as the life table does."""

    clock: int = 0
    learned: int = 0
    """The clock when learning was last done."""
    fill: float = 0.9
    touched: float = 0.0
    touched_bytes: float = 0.0
    adaptive_bytes: float = 0.0


class LayerPolicy:
    """Decides for one tier which entries are worth keeping; the tier evicts the smallest priority first.

    `capacity` is in bytes. One thread at a time may use it.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 byte, not {capacity}")
        self.capacity = capacity
        self.directory = Directory()
        self.table = LifeTable()
        self.flows = Flows()
        self._tally = _Tally()
        self._shift: int | None = None
        self._evicted = self._evicted_early = 0
        self._veterans: deque[int] = deque()
        self._make_plan()

    @property
    def mean_size(self) -> float:
        """Bytes of an entry, over what was touched lately."""
        return self._tally.touched_bytes / self._tally.touched if self._tally.touched else 1.0

    @property
    def entries(self) -> float:
        """About how many entries fit into the tier."""
        return self.capacity / max(self.mean_size, 1.0)

    @property
    def horizon(self) -> int:
        """The age up to which reuse is learned and ghosts are kept, in touches."""
        return min(int(2 * self.entries) + 65_536, MAX_HORIZON)

    def touch(self, touches: Sequence[Touch]) -> list[int]:
        """The priority of each, in the same order. Raises ValueError for a bad size or saving.

        The touches of a request should come in one call. A call also learns: once in PERIOD touches, for less
        than a millisecond.
        """
        priorities: list[int] = []
        for request in split_requests(touches):
            self._follow(request[0].now)
            if self._tally.clock >= self._tally.learned + PERIOD:
                self._learn()
            self._touch(request, priorities)
        return priorities

    def evicted(self, evictions: Iterable[Eviction]) -> None:
        """Entries left the tier. Those that are not known, or were touched again since, are left out."""
        directory, shift, entries = self.directory, self._shift or 0, self.entries
        for key, priority, now in evictions:
            row = directory.rows.get(key)
            if row is None or not directory.cached[row] or directory.last[row] > now + shift:
                continue
            directory.cached[row] = GHOST
            if directory.classes[row] == NO_CLASS:
                directory.touches[row] = 0
                # A tier with lru only would have kept it for as many touches as entries fit.
                lru = priority + shift == directory.last[row]
                early = lru and now - priority < entries
            else:
                early = priority > now
            self._evicted += 1
            self._evicted_early += early
            if directory.cohorts[row] == UNTRACKED:
                directory.forget(row)

    def dump(self) -> bytes:
        """What was learned and which entries are known, for `load` after a restart."""
        return state.dump(asdict(self._tally), self.directory, self.table, self.flows)

    def load(self, data: bytes) -> None:
        """Go on from what `dump` returned; the capacity may be another one, the tier's clock may start anew.

        Raises StateError for what is damaged or foreign, and changes nothing then.
        """
        tally, directory, table, flows = state.load(data)
        self._tally = _Tally(**tally)
        self.directory, self.table, self.flows = directory, table, flows
        self._shift = None
        self._evicted = self._evicted_early = 0
        self._veterans.clear()
        self._make_plan()

    def _follow(self, now: int) -> None:
        """Keep the policy's clock going where the tier's clock starts anew, as after a restart."""
        clock = self._tally.clock
        if self._shift is None or not 0 < now + self._shift - clock <= MAX_HORIZON:
            self._shift = clock + 1 - now

    def _touch(self, request: Sequence[Touch], priorities: list[int]) -> None:
        directory, table = self.directory, self.table
        rows, last, counts, classes = directory.rows, directory.last, directory.touches, directory.classes
        numbers, cached = directory.cohorts, directory.cached
        cohorts, first, current = table.cohorts, table.first, table.current
        hits = table.hits
        remaining, members = cohorts[-1].remaining, cohorts[-1].members
        sizes, savings = self.flows.sizes, self.flows.savings
        plan, edges, adaptive = self.plan, EDGES, int(Strategy.ADAPTIVE)
        assert self._shift is not None
        shift = self._shift
        coin = self._coin(request)
        self._tally.touched += len(request)
        self._tally.touched_bytes += sum(touch[3] for touch in request)
        lfu_step = int(4 * self.entries)
        known_size, known_saving, base = 0, 0.0, 0
        adaptive_bytes = 0
        for key, _, now, size, kind, strategy, saving in request:
            if size != known_size or saving != known_saving:
                known_size, known_saving, base = size, saving, band_of(size, saving) * CLASSES
            clock = now + shift
            row = rows.get(key)
            if row is None:
                row = directory.add(key, coin)
                count = 1
            else:
                number = classes[row]
                if number >= 0:
                    bucket = bisect_right(edges, clock - last[row]) - 1
                    if bucket < BUCKETS and numbers[row] >= first:
                        place = number * BUCKETS + bucket
                        hits[place] += 1
                        cohorts[numbers[row] - first].ended[place] += 1
                count = counts[row]
                if count < _MAX_TOUCHES:
                    count += 1
            counts[row] = count
            last[row] = clock
            cached[row] = CACHED
            numbers[row] = current
            members.append(row)
            if strategy == adaptive:
                adaptive_bytes += size
                classes[row] = number = CLASS_OF[kind][count if count < 4 else 4]
                remaining[number] += 1
                sizes[base + number] += size
                savings[base + number] += saving
                short, long, share = plan[base + number]
                priorities.append(now + (long if coin < share else short))
            else:
                classes[row] = NO_CLASS
                aged = lfu_step * (min(count, MAX_LFU_TOUCHES) - 2)
                priorities.append(now if strategy == Strategy.LRU else now + aged)
        self._tally.clock = clock
        self._tally.adaptive_bytes += adaptive_bytes

    def _coin(self, request: Sequence[Touch]) -> float:
        """The conversation's coin: that of the deepest known entry, or a new one below a fork."""
        directory = self.directory
        rows = directory.rows
        new, row = 0, None
        while row is None and new < len(request):
            row = rows.get(request[new][0])
            new += row is None
        if row is None:
            row = rows.get(request[-1][1])
            if row is None:
                return _coin_of(request[-1][0])
        if new and directory.branches[row] <= MAX_BRANCHES:
            directory.branches[row] += 1
        if new and directory.branches[row] > MAX_BRANCHES:
            return _coin_of(request[new - 1][0])
        return directory.coins[row]

    def _learn(self) -> None:
        tally = self._tally
        elapsed = tally.clock - tally.learned
        tally.learned = tally.clock
        fade = 0.5 ** (elapsed / max(8 * self.entries, 100_000))
        old = self.table.advance(tally.clock, elapsed, fade, self.horizon)
        self.flows.fade(fade)
        tally.touched *= fade
        tally.touched_bytes *= fade
        tally.adaptive_bytes *= fade
        for number, cohort in enumerate(old, self.table.first - len(old)):
            self._forget(number, cohort)
        if self._evicted:
            if self._evicted_early > EARLY_SHARE * self._evicted:
                tally.fill = max(MIN_FILL, tally.fill * 0.97)
            else:
                tally.fill = min(MAX_FILL, tally.fill * 1.01)
            self._evicted = self._evicted_early = 0
        self._make_plan()

    def _make_plan(self) -> None:
        # The plan is for `adaptive` only: other strategies get a part of the tier by the bytes they touch.
        tally = self._tally
        share = tally.adaptive_bytes / tally.touched_bytes if tally.touched_bytes else 0.0
        self.plan = make_plan(self.table, self.flows, tally.fill * self.capacity * share, self.horizon)

    def _forget(self, number: int, cohort: Cohort) -> None:
        """Drop the ghosts of a cohort. Its cached entries stay known, as many as the tier can have."""
        directory = self.directory
        for row in cohort.members:
            if directory.cohorts[row] == number:
                directory.cohorts[row] = UNTRACKED
                if directory.cached[row]:
                    self._veterans.append(row)
                else:
                    directory.forget(row)
        while len(self._veterans) > 1.25 * self.entries:
            row = self._veterans.popleft()
            if directory.cohorts[row] == UNTRACKED and directory.rows.get(directory.keys[row]) == row:
                directory.forget(row)


def _coin_of(key: int) -> float:
    """A number in [0, 1) that a conversation keeps."""
    return (key >> 11) / (1 << 53)
