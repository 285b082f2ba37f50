"""Replays traces of requests against the policy that serves, and against others. Not for the server."""

from atlas_plugin.eviction.simulation.cache import SimulatedLayer
from atlas_plugin.eviction.simulation.external import MissingLibrary
from atlas_plugin.eviction.simulation.generate import LOADS
from atlas_plugin.eviction.simulation.replay import POLICIES, Result, replay, touches_of
from atlas_plugin.eviction.simulation.trace import (
    BLOCK_TOKENS,
    TraceError,
    TraceRequest,
    key_of,
    read_trace,
    write_trace,
)

__all__ = [
    "BLOCK_TOKENS",
    "LOADS",
    "POLICIES",
    "MissingLibrary",
    "Result",
    "SimulatedLayer",
    "TraceError",
    "TraceRequest",
    "key_of",
    "read_trace",
    "replay",
    "touches_of",
    "write_trace",
]
