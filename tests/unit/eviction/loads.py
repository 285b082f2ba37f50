"""What the tests of eviction share: touches in short, and the trace of conversations."""

import os
from collections.abc import Sequence
from pathlib import Path

from atlas_cli.simulation import LOADS, TraceRequest, key_of
from atlas_plugin.eviction import Kind, Strategy, Touch
from tests.server.harness import REPOSITORY

# Not part of the repository: it belongs to the Mooncake project and is only lent.
TRACE = Path(
    os.environ.get("ATLAS_TEST_TRACE") or REPOSITORY.parent / "shared/traces/conversation_trace.jsonl"
)


def chain(
    ids: Sequence[int],
    now: int,
    strategy: Strategy = Strategy.ADAPTIVE,
    *,
    size: int = 1,
    saving: float = 1.0,
    tail: bool = False,
) -> list[Touch]:
    """The touches of a request for blocks given root first by small numbers; the first touch is at `now`."""
    keys = [key_of(number) for number in ids]
    parents = [0, *keys[:-1]]
    kinds = [Kind.BLOCK] * (len(keys) - 1) + [Kind.TAIL if tail else Kind.BLOCK]
    return [
        Touch(key, parent, now + after, size, kind, strategy, saving)
        for after, (key, parent, kind) in enumerate(
            zip(reversed(keys), reversed(parents), reversed(kinds), strict=True)
        )
    ]


def generated(load: str, requests: int, blocks: int, seed: int = 1) -> list[TraceRequest]:
    return [
        TraceRequest(tuple(map(key_of, ids)), tokens) for ids, tokens in LOADS[load](requests, blocks, seed)
    ]
