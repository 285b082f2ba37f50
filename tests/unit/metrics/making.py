"""Families as a server might answer them."""

from atlas_plugin.metrics import Family, Sample

BOUNDS = (0.001, 0.002, 0.004, None)


def histogram(name: str, *values: float, **labels: str) -> Family:
    """A family with one histogram of these values."""
    buckets = [(bound, sum(bound is None or value <= bound for value in values)) for bound in BOUNDS]
    sample = Sample(labels, sum=sum(values), count=len(values), buckets=buckets)
    return Family(name, "histogram", f"Help of {name}.", [sample])


def counter(name: str, *samples: tuple[dict[str, str], float]) -> Family:
    return Family(name, "counter", f"Help of {name}.", [Sample(*sample) for sample in samples])


def gauge(name: str, *samples: tuple[dict[str, str], float | None]) -> Family:
    return Family(name, "gauge", f"Help of {name}.", [Sample(*sample) for sample in samples])
