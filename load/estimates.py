"""What samples tell, and how surely."""

import itertools
import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

RESAMPLES = 2_000
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A value, and the interval that it lies in with CONFIDENCE."""

    value: float
    low: float
    high: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` (0 to 100) of all are not above, interpolated between neighbours.

    Raises ValueError for no values.
    """
    if not values:
        raise ValueError("no values to take a percentile of")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def estimate_median(values: Sequence[float]) -> Estimate:
    """The median, with a percentile bootstrap interval; equal values give equal intervals.

    Of few values the interval is little more than their range.
    """
    source = random.Random(1)
    medians = [statistics.median(source.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    tail = (1 - CONFIDENCE) / 2 * 100
    return Estimate(statistics.median(values), percentile(medians, tail), percentile(medians, 100 - tail))


def estimate_ratio(values: Sequence[float], base: Sequence[float]) -> Estimate:
    """The median of the ratios round by round, so that what changes between rounds cancels.

    Both hold one positive value a round, in the same order. Raises ValueError where their numbers differ.
    """
    return estimate_median([value / other for value, other in zip(values, base, strict=True)])


def noise_factor(same: Estimate) -> float:
    """How far a ratio may be from 1, as a factor of at least 1, when `same` is that of a server to itself."""
    return max(same.high, 1 / same.low)


def is_different(ratio: Estimate, noise: float) -> bool:
    """Whether the whole interval of `ratio` lies beyond the noise."""
    return ratio.low > noise or ratio.high < 1 / noise


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Theil and Sen's: the median slope between any two points, which few outliers do not move.

    Raises ValueError where there are not two points of different times.
    """
    points = zip(times, values, strict=True)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2) if a[0] != b[0]]
    if not slopes:
        raise ValueError("a slope needs two points of different times")
    return statistics.median(slopes)
