"""Families of metrics, in the form that ATLAS_QUERY_METRICS has for them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import msgspec

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


class Sample(msgspec.Struct, frozen=True):
    """A number, or a histogram: then `sum`, `count` and `buckets` stand in place of `value`.

    `value` is None for infinity, as a budget without a limit is.
    `buckets` are upper bounds, which rise up to None for infinity, each with the count of all up to it.
    """

    labels: dict[str, str] = {}
    value: float | None = 0.0
    sum: float = 0.0
    count: int = 0
    buckets: list[tuple[float | None, int]] = []

    @property
    def number(self) -> float:
        """The value as a number."""
        return float("inf") if self.value is None else self.value


class Family(msgspec.Struct, frozen=True):
    """Samples of one name, which have the same label names; a counter's name ends in `_total`."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    samples: list[Sample]


def check_families(families: Iterable[Family]) -> list[Family]:
    """The families, if Prometheus can read them. Raises TypeError or ValueError."""
    checked = msgspec.convert(msgspec.to_builtins([*families]), list[Family])
    for family in checked:
        labels = {frozenset(sample.labels) for sample in family.samples}
        names = {name for some in labels for name in some}
        if not _NAME.fullmatch(family.name) or not all(map(_LABEL.fullmatch, names)):
            raise ValueError(f"{family.name!r} or one of its labels is no name that Prometheus reads")
        if len(labels) > 1:
            raise ValueError(f"the samples of {family.name} have different labels")
        if family.type == "counter" and not family.name.endswith("_total"):
            raise ValueError(f"{family.name} is a counter and does not end in _total")
        bounds = [[bound for bound, _ in sample.buckets] for sample in family.samples]
        if family.type == "histogram" and not all(some and some[-1] is None for some in bounds):
            raise ValueError(f"the buckets of {family.name} do not go up to None, for infinity")
        "".join([family.help, *(text for one in family.samples for text in one.labels.values())]).encode()
    return checked


class _Answer(msgspec.Struct):
    families: list[Family]


_DECODER = msgspec.json.Decoder(_Answer)


def decode_families(answer: bytes) -> list[Family]:
    """The families of an answer to ATLAS_QUERY_METRICS. Raises msgspec.MsgspecError where it is none."""
    return _DECODER.decode(answer).families


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values by size; `bounds` and cumulative `counts` go together, the last bound is infinity."""

    bounds: Sequence[float] = ()
    counts: Sequence[int] = ()
    sum: float = 0.0
    count: int = 0

    def since(self, before: "Histogram") -> "Histogram":
        """What was added to an earlier state of this one."""
        earlier = before.counts or (0,) * len(self.counts)
        counts = tuple(now - then for now, then in zip(self.counts, earlier, strict=True))
        return Histogram(self.bounds, counts, self.sum - before.sum, self.count - before.count)

    @property
    def mean(self) -> float:
        """The exact mean; 0 of nothing."""
        return self.sum / self.count if self.count else 0.0

    @property
    def range(self) -> tuple[float, float]:
        """Between which bounds all values lie; 0, 0 of nothing. The last finite bound stands for infinity."""
        edges = [(0.0, 0), *zip(self.bounds, self.counts, strict=True)]
        filled = [(edge, upper) for (edge, below), (upper, up_to) in pairwise(edges) if up_to > below]
        if not filled:
            return 0.0, 0.0
        lower, upper = filled[0][0], filled[-1][1]
        return lower, upper if upper != float("inf") else filled[-1][0]

    def quantile(self, part: float) -> float | None:
        """What that part of all values, above 0 and at most 1, is no larger than; None of nothing.

        Values are taken to lie evenly in their bucket. The last finite bound stands for infinity.
        """
        wanted = part * self.count
        for (lower, below), (upper, up_to) in pairwise(
            [(0.0, 0), *zip(self.bounds, self.counts, strict=True)]
        ):
            if up_to >= wanted > below:
                return (
                    lower
                    if upper == float("inf")
                    else lower + (upper - lower) * (wanted - below) / (up_to - below)
                )
        return None


class Families:
    """Looks samples up by the names of their families; a family that is not there counts as 0."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._samples: Mapping[str, Sequence[Sample]] = {one.name: one.samples for one in families}

    def total(self, name: str, **labels: str) -> float:
        """The sum of a family's samples that have these labels."""
        samples = self._samples.get(name, ())
        return sum(sample.number for sample in samples if labels.items() <= sample.labels.items())

    def histogram(self, name: str, **labels: str) -> Histogram:
        """The sum of a family's histograms that have these labels."""
        samples = [
            sample
            for sample in self._samples.get(name, ())
            if sample.buckets and labels.items() <= sample.labels.items()
        ]
        if not samples:
            return Histogram()
        return Histogram(
            bounds=tuple(float("inf") if bound is None else bound for bound, _ in samples[0].buckets),
            counts=tuple(map(sum, zip(*([n for _, n in one.buckets] for one in samples), strict=True))),
            sum=sum(sample.sum for sample in samples),
            count=sum(sample.count for sample in samples),
        )
