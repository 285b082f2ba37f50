"""The Prometheus text of the families that Python adds; the server writes its own the same way."""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from atlas_plugin.metrics.families import Family

_OPENMETRICS = "application/openmetrics-text"


def expose(families: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """The text and its Content-Type: OpenMetrics 1.0.0 where the `Accept` header names it, else 0.0.4."""
    collector = _Collector(families)
    # Not choose_encoder of prometheus_client: it raises for versions that are no numbers.
    if any(kind.partition(";")[0].strip().lower() == _OPENMETRICS for kind in accept.split(",")):
        text: bytes = openmetrics.generate_latest(collector)  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(collector), CONTENT_TYPE_PLAIN_0_0_4


class _Collector(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            names = sorted(family.samples[0].labels) if family.samples else []
            if family.type == "histogram":
                yield _histogram(family, names)
                continue
            kind = CounterMetricFamily if family.type == "counter" else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=names)
            for sample in family.samples:
                metric.add_metric([sample.labels[name] for name in names], sample.number)
            yield metric


def _histogram(family: Family, names: Sequence[str]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=names)
    for sample in family.samples:
        buckets = [("+Inf" if bound is None else str(bound), float(count)) for bound, count in sample.buckets]
        metric.add_metric([sample.labels[name] for name in names], buckets, sample.sum)
    return metric
