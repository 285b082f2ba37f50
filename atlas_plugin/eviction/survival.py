"""How long entries stay untouched: a life table for each class of entries, learned from touches.

Touches are counted in cohorts of about `PERIOD` touches. When the youngest touch of a cohort reaches an age,
the number of its entries that were not touched again since is added to the table: so many have entered that
age. This takes no second look at any entry. Old counts fade, so that the table follows the load.
"""

from array import array
from bisect import bisect_left
from collections import deque

PERIOD = 2_000
MAX_HORIZON = 1 << 18
"""Larger ages, in touches, are not learned. This bounds the memory that ghosts take."""

CLASS_OF = (
    (0, 0, 1, 2, 3),  # a block touched 1, 2, 3, 4 or more times
    (0, 4, 1, 2, 3),  # a tail touched once; a tail that is touched again behaves as a block does
    (0, 5, 6, 6, 6),  # a checkpoint touched once, more often
)
"""The class of an entry by its `Kind` and its touches, 4 at most."""
CLASSES = 7


def _edges() -> tuple[int, ...]:
    edges = [0, 64]
    while edges[-1] < MAX_HORIZON:
        edges.append(int(edges[-1] * 1.3))
    return tuple(edges)


EDGES = _edges()
"""Bucket b holds the ages from EDGES[b] to EDGES[b + 1], in touches."""
BUCKETS = len(EDGES) - 1


class Cohort:
    """The touches of one period: how many are still untouched, and at which ages the others were touched."""

    __slots__ = ("end", "ended", "members", "reached", "remaining")

    def __init__(self) -> None:
        self.end = 0
        self.reached = 0
        self.remaining = [0] * CLASSES
        self.ended = [0] * (CLASSES * BUCKETS)
        self.members = array("i")


class LifeTable:
    """For each class, fading counts of the entries that entered a bucket of ages, and of those touched in it.

    Its members are public, because the policy's loop over touches is faster so. `hits` and `entered` are
    indexed by class * BUCKETS + bucket.
    """

    def __init__(self) -> None:
        self.hits = [0.0] * (CLASSES * BUCKETS)
        self.entered = [0.0] * (CLASSES * BUCKETS)
        self.time = 0.0
        """Touches of the clock that the counts stand for, faded as they are."""
        self.cohorts: deque[Cohort] = deque([Cohort()])
        self.first = 0
        """The number of the oldest cohort; the last one is growing."""

    @property
    def current(self) -> int:
        return self.first + len(self.cohorts) - 1

    def advance(self, clock: int, elapsed: int, fade: float, horizon: int) -> list[Cohort]:
        """End the current cohort and begin another. Returns cohorts that are older than `horizon` now."""
        self.hits = [count * fade for count in self.hits]
        self.entered = [count * fade for count in self.entered]
        self.time = self.time * fade + elapsed
        self.cohorts[-1].end = clock
        for cohort in self.cohorts:
            while cohort.reached < BUCKETS and cohort.end + EDGES[cohort.reached] <= clock:
                self._count(cohort)
        old = []
        last = EDGES[buckets_below(horizon)]
        while self.cohorts and self.cohorts[0].end + last <= clock:
            old.append(self.cohorts.popleft())
        self.first += len(old)
        self.cohorts.append(Cohort())
        return old

    def _count(self, cohort: Cohort) -> None:
        bucket = cohort.reached
        for number in range(CLASSES):
            place = number * BUCKETS + bucket
            if bucket:
                cohort.remaining[number] -= cohort.ended[place - 1]
            self.entered[place] += cohort.remaining[number]
        cohort.reached += 1


def buckets_below(horizon: int) -> int:
    """How many buckets it takes to cover the ages up to `horizon`."""
    return min(bisect_left(EDGES, horizon), BUCKETS)
