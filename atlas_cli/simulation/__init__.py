"""Replays traces of requests against the policy that serves, and against others. Not for the server."""

from atlas_cli.simulation.cache import SimulatedLayer
from atlas_cli.simulation.external import MissingLibrary
from atlas_cli.simulation.generate import LOADS
from atlas_cli.simulation.replay import POLICIES, Result, replay, touches_of
from atlas_cli.simulation.trace import (
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
