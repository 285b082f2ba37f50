"""The grace of each class of entries: the plan that gets the most saving out of the bytes of a tier."""

from itertools import pairwise
from math import frexp, isfinite
from typing import NamedTuple

from atlas_plugin.eviction.survival import BUCKETS, CLASSES, EDGES, LifeTable, buckets_below

PRIOR = 100
"""The weight, in entries, of all classes' hazard in that of each class: steadies classes with few entries."""
BANDS = 64
WORTHLESS = 0
"""The band of entries that do not pay."""
_LOWEST_EXPONENT = -48


class Grace(NamedTuple):
    """How long an entry is kept after its last touch, in touches.

    It is `long` for conversations whose coin, a number in [0, 1), is below `share`, and `short` for others.
    """

    short: int
    long: int
    share: float


NO_GRACE = Grace(0, 0, 0.0)


class _Step(NamedTuple):
    """A longer grace, `stop` instead of `start`: what it takes (occupancy) and brings (hits) an entry."""

    start: int
    stop: int
    occupancy: float
    hits: float


def band_of(size: int, saving: float) -> int:
    """The band of entries worth about as much per byte, by factors of two of seconds per byte.

    Raises ValueError for a size below 1 and for a saving that is not finite.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 byte, not {size}")
    if not isfinite(saving):
        raise ValueError(f"saving must be a finite number of seconds, not {saving}")
    if saving <= 0:
        return WORTHLESS
    return min(max(frexp(saving / size)[1] - _LOWEST_EXPONENT, 1), BANDS - 1)


class Flows:
    """Fading sums of what was touched, by band and class: index band * CLASSES + class."""

    def __init__(self) -> None:
        self.sizes = [0.0] * (BANDS * CLASSES)
        self.savings = [0.0] * (BANDS * CLASSES)

    def fade(self, factor: float) -> None:
        self.sizes = [value * factor for value in self.sizes]
        self.savings = [value * factor for value in self.savings]


def make_plan(table: LifeTable, flows: Flows, capacity: float, horizon: int) -> list[Grace]:
    """The grace by band * CLASSES + class, for `capacity` bytes."""
    plan = [NO_GRACE] * (BANDS * CLASSES)
    plan[:CLASSES] = [Grace(-horizon, -horizon, 0.0)] * CLASSES
    steps = []
    buckets = buckets_below(horizon)
    pooled = _pooled_hazard(table, buckets)
    for number in range(CLASSES):
        hull: list[_Step] = []
        for index in range(CLASSES + number, BANDS * CLASSES, CLASSES):
            if (size := flows.sizes[index]) and table.time:
                hull = hull or _hull(table, number, pooled)
                worth, rate = flows.savings[index] / size, size / table.time
                steps += [(step.hits / step.occupancy * worth, index, step, rate) for step in hull]
    steps.sort(key=lambda item: item[0], reverse=True)
    for value, index, step, rate in steps:
        bytes_held = rate * step.occupancy
        if value <= 0:
            break
        if bytes_held > capacity:
            plan[index] = Grace(step.start, step.stop, capacity / bytes_held)
            break
        plan[index] = Grace(step.stop, step.stop, 0.0)
        capacity -= bytes_held
    return plan


def _pooled_hazard(table: LifeTable, buckets: int) -> list[float]:
    pooled = []
    for bucket in range(buckets):
        entered = sum(table.entered[bucket::BUCKETS])
        pooled.append(sum(table.hits[bucket::BUCKETS]) / entered if entered else 0.0)
    return pooled


def _hull(table: LifeTable, number: int, pooled: list[float]) -> list[_Step]:
    """The upper concave hull of hits over occupancy, as the grace of class `number` grows."""
    untouched, occupancy, hits = 1.0, 0.0, 0.0
    points = [(0, 0.0, 0.0)]
    for bucket, common in enumerate(pooled):
        place = number * BUCKETS + bucket
        hazard = min(1.0, (table.hits[place] + PRIOR * common) / (table.entered[place] + PRIOR))
        left = untouched * (1.0 - hazard)
        occupancy += (EDGES[bucket + 1] - EDGES[bucket]) * (untouched + left) / 2
        hits += untouched - left
        untouched = left
        while len(points) > 1 and _rises(points[-2], points[-1], (0, occupancy, hits)):
            points.pop()
        points.append((EDGES[bucket + 1], occupancy, hits))
    return [
        _Step(start, stop, after - before, more - less)
        for (start, before, less), (stop, after, more) in pairwise(points)
    ]


def _rises(
    first: tuple[int, float, float], middle: tuple[int, float, float], last: tuple[int, float, float]
) -> bool:
    """Whether the slope does not fall at `middle`."""
    return (middle[2] - first[2]) * (last[1] - middle[1]) <= (last[2] - middle[2]) * (middle[1] - first[1])
