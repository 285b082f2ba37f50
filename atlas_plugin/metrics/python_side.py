"""The families that Python adds to the server's."""

import gc
import sys
from collections import Counter

from atlas_plugin.host.manager import PluginManager
from atlas_plugin.metrics.families import Family, Sample
from atlas_plugin.metrics.sampler import Sampler


def python_families(plugins: PluginManager, sampler: Sampler) -> list[Family]:
    """Plugins and their hooks, the interpreter, and who follows the metrics."""
    hooks = [({"plugin": one.plugin, "hook": one.hook}, one) for one in plugins.hooks.calls()]
    states = Counter(info.state for info in plugins.infos())
    return [
        Family(
            "atlas_hook_calls_total",
            "counter",
            "Calls of plugins' hooks.",
            [Sample(labels, one.calls) for labels, one in hooks],
        ),
        Family(
            "atlas_hook_errors_total",
            "counter",
            "Calls of plugins' hooks that raised, or answered what they may not.",
            [Sample(labels, one.errors) for labels, one in hooks],
        ),
        Family(
            "atlas_hook_seconds_total",
            "counter",
            "Seconds that calls of plugins' hooks took.",
            [Sample(labels, one.seconds) for labels, one in hooks],
        ),
        Family(
            "atlas_plugins",
            "gauge",
            "Plugins by state.",
            [Sample({"state": state}, states[state]) for state in ("active", "disabled", "failed")],
        ),
        Family(
            "atlas_metrics_subscribers",
            "gauge",
            "Clients that follow the stream of metrics.",
            [Sample(value=sampler.subscriptions)],
        ),
        Family(
            "atlas_python_allocated_blocks",
            "gauge",
            "Blocks of memory that the interpreter's allocator holds.",
            [Sample(value=sys.getallocatedblocks())],
        ),
        Family(
            "atlas_python_gc_collections_total",
            "counter",
            "Runs of the garbage collector, by generation.",
            [Sample({"generation": str(i)}, one["collections"]) for i, one in enumerate(gc.get_stats())],
        ),
    ]
