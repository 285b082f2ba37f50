"""The server's metrics: their families, readings of them over time, and their Prometheus text."""

from atlas_plugin.metrics.families import Family, Sample
from atlas_plugin.metrics.readings import Current, Reading
from atlas_plugin.metrics.sampler import Sampler, Subscription

__all__ = ["Current", "Family", "Reading", "Sample", "Sampler", "Subscription"]
