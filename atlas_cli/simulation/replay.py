"""Replays a trace against a layer, and counts what it finds there."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from atlas_cli.simulation.baselines import Belady, ClassicLfu
from atlas_cli.simulation.cache import Policy, SimulatedLayer
from atlas_cli.simulation.external import ALGORITHMS, ExternalLayer
from atlas_cli.simulation.trace import TraceRequest
from atlas_plugin import facts
from atlas_plugin.eviction.policy import LayerPolicy
from atlas_plugin.eviction.records import Eviction, Kind, Strategy, Touch

STRATEGIES = {name: Strategy(number) for number, name in enumerate(facts.STRATEGIES)}
POLICIES = (*STRATEGIES, "lfu-classic", "belady", *ALGORITHMS)


@dataclass(frozen=True)
class Result:
    """What a policy reached. Rates are from 0 to 1."""

    policy: str
    capacity: int
    """Bytes; blocks, where each has the size 1."""
    requests: int
    blocks: int
    block_hits: int
    prefix_hits: int
    """Hits before the first block of a request that is missing: only those save computing."""
    tokens: int
    prefix_tokens: int
    policy_seconds: float
    """Spent in the policy, without the simulated layer; for those of libcachesim, with theirs."""

    @property
    def block_rate(self) -> float:
        return self.block_hits / self.blocks

    @property
    def prefix_rate(self) -> float:
        return self.prefix_hits / self.blocks

    @property
    def token_rate(self) -> float:
        return self.prefix_tokens / self.tokens


def replay(requests: Sequence[TraceRequest], policy: str, capacity: int, block_bytes: int = 1) -> Result:
    """Replay `requests` against a layer of `capacity` bytes with blocks of `block_bytes`.

    `policy` is one of POLICIES. Raises ValueError for another one, for numbers below 1 and without requests;
    MissingLibrary where the policy needs libcachesim and that is not installed.
    """
    if policy not in POLICIES:
        raise ValueError(f"there is no policy '{policy}'; the policies are {', '.join(POLICIES)}")
    for name, value in ("capacity", capacity), ("block_bytes", block_bytes):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not requests:
        raise ValueError("there are no requests to simulate")
    layer: _Layer
    if policy in ALGORITHMS:
        layer = _External(policy, capacity)
    else:
        layer = _Ordered(_make_policy(policy, requests, capacity), capacity)
    blocks = hits = prefix = tokens = prefix_tokens = 0
    strategy = STRATEGIES.get(policy, Strategy.LRU)
    for request, touches in zip(requests, touches_of(requests, strategy, block_bytes), strict=True):
        found = layer.request(touches)
        count = len(found)
        first_missing = next((depth for depth, hit in enumerate(reversed(found)) if not hit), count)
        blocks += count
        hits += sum(found)
        prefix += first_missing
        tokens += request.tokens
        prefix_tokens += min(request.tokens, first_missing * request.block_tokens)
    return Result(
        policy, capacity, len(requests), blocks, hits, prefix, tokens, prefix_tokens, layer.policy_seconds
    )


def touches_of(
    requests: Iterable[TraceRequest], strategy: Strategy, block_bytes: int = 1
) -> Iterator[list[Touch]]:
    """The touches of each request, deepest first. A partial last block is a tail of its part of the bytes."""
    now = 0
    for request in requests:
        keys, tail = request.keys, request.tail_tokens
        size, kind = block_bytes, Kind.BLOCK
        if tail != request.block_tokens:
            size, kind = -(-block_bytes * tail // request.block_tokens), Kind.TAIL
        touches = []
        for depth in range(len(keys) - 1, -1, -1):
            now += 1
            parent = keys[depth - 1] if depth else 0
            touches.append(Touch(keys[depth], parent, now, size, kind, strategy, float(size)))
            size, kind = block_bytes, Kind.BLOCK
        yield touches


class _Layer(Protocol):
    policy_seconds: float

    def request(self, touches: Sequence[Touch]) -> list[bool]:
        """Touch the entries; for each, whether it was there before."""


class _Ordered:
    """A simulated layer under a policy whose calls are timed."""

    def __init__(self, policy: Policy, capacity: int) -> None:
        self.policy_seconds = 0.0
        self._policy = policy
        self._layer = SimulatedLayer(self, capacity)

    def request(self, touches: Sequence[Touch]) -> list[bool]:
        layer = self._layer
        found = [touch[0] in layer for touch in touches]
        layer.request(touches)
        return found

    def touch(self, touches: Sequence[Touch]) -> list[int]:
        start = perf_counter()
        priorities = self._policy.touch(touches)
        self.policy_seconds += perf_counter() - start
        return priorities

    def evicted(self, evictions: Iterable[Eviction]) -> None:
        start = perf_counter()
        self._policy.evicted(evictions)
        self.policy_seconds += perf_counter() - start


class _External:
    def __init__(self, algorithm: str, capacity: int) -> None:
        self.policy_seconds = 0.0
        self._layer = ExternalLayer(algorithm, capacity)

    def request(self, touches: Sequence[Touch]) -> list[bool]:
        start = perf_counter()
        found = self._layer.hits(touches)
        self.policy_seconds += perf_counter() - start
        return found


def _make_policy(name: str, requests: Sequence[TraceRequest], capacity: int) -> Policy:
    if name == "belady":
        return Belady(requests)
    return ClassicLfu() if name == "lfu-classic" else LayerPolicy(capacity)
