"""The metrics that a plugin keeps: counters, gauges and histograms of prometheus_client, by checked names."""

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import inf
from typing import TYPE_CHECKING, Literal

from atlas_plugin.metrics.families import Family, Sample, check_families

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram
    from prometheus_client import samples as client
    from prometheus_client.metrics import MetricWrapperBase

log = logging.getLogger("atlas")

_TAKEN = ("atlas_", "llamacpp:")
"""How the server's own names begin."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)


class Metrics:
    """Makes one plugin's metrics, in its `register_metrics`; they are exported until the plugin is gone.

    What is made is prometheus_client's, and any thread may use it: `.inc()`, `.set(number)`,
    `.observe(number)`, and of one with labels first `.labels(vote="up")`. `counter`, `gauge` and `histogram`
    raise ValueError for a name that Prometheus cannot read, that the server has or that was made already, and
    RuntimeError once `register_metrics` has returned.
    """

    def __init__(self) -> None:
        self._made: dict[str, MetricWrapperBase] = {}
        self._is_open = True
        self._failed: set[str] = set()

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> "Counter":
        """What only rises; the name ends in `_total`."""
        # Imported here, as most servers need none of it.
        from prometheus_client import Counter

        self._check(name, "counter", help, labels)
        self._made[name] = made = Counter(name, help, labels, registry=None)
        return made

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> "Gauge":
        """What rises and falls."""
        from prometheus_client import Gauge

        self._check(name, "gauge", help, labels)
        self._made[name] = made = Gauge(name, help, labels, registry=None)
        return made

    def histogram(
        self, name: str, help: str, labels: Sequence[str] = (), buckets: Sequence[float] = _BUCKETS
    ) -> "Histogram":
        """How large things were; `buckets` are upper bounds that rise, those for seconds by default."""
        from prometheus_client import Histogram

        self._check(name, "histogram", help, labels)
        self._made[name] = made = Histogram(name, help, labels, registry=None, buckets=buckets)
        return made

    def close(self) -> tuple[str, ...]:
        """Let no more be made; the names of those that were."""
        self._is_open = False
        return tuple(self._made)

    def families(self) -> list[Family]:
        """What they say now, but for those that fail, which the log says once. Any thread."""
        found = []
        for name, metric in self._made.items():
            try:
                found += check_families([_family(name, metric)])
            except (
                Exception
            ):  # a function of the plugin's that gives a gauge its value; a label that is no text
                if name not in self._failed:
                    log.exception("the metric %s cannot be read, and is left out while that is so", name)
                self._failed.add(name)
            else:
                self._failed.discard(name)
        return found

    def _check(
        self, name: str, kind: Literal["counter", "gauge", "histogram"], help: str, labels: Sequence[str]
    ) -> None:
        if not self._is_open:
            raise RuntimeError(f"{name}: metrics are made in register_metrics only")
        if isinstance(labels, str):
            raise ValueError(f"{name}: labels is a list of names, not a text")
        check_families([Family(name, kind, help, [Sample(dict.fromkeys(labels, ""), buckets=[(None, 0)])])])
        if name.startswith(_TAKEN):
            raise ValueError(f"{name}: names that begin with {' or '.join(_TAKEN)} are the server's")
        if name in self._made:
            raise ValueError(f"{name} was made already")


def _family(name: str, metric: "MetricWrapperBase") -> Family:
    (collected,) = metric.collect()
    if collected.type == "histogram":
        return Family(name, "histogram", collected.documentation, list(_histograms(name, collected.samples)))
    samples = [Sample(one.labels, one.value) for one in collected.samples if one.name == name]
    kind: Literal["counter", "gauge"] = "counter" if collected.type == "counter" else "gauge"
    return Family(name, kind, collected.documentation, samples)


def _histograms(name: str, samples: Sequence["client.Sample"]) -> Iterator[Sample]:
    """One for each combination of labels, whose samples follow each other."""

    def own_labels(sample: "client.Sample") -> dict[str, str]:
        return {label: text for label, text in sample.labels.items() if label != "le"}

    for labels, group in groupby(samples, own_labels):
        of = list(group)
        bounds = [(float(one.labels["le"]), int(one.value)) for one in of if "le" in one.labels]
        (total,) = (one.value for one in of if one.name == f"{name}_sum")
        buckets = [(None if bound == inf else bound, count) for bound, count in bounds]
        yield Sample(labels, sum=total, count=bounds[-1][1], buckets=buckets)
