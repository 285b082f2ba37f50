"""Makes readings for operators from counters, which only rise: totals, and rates over the last seconds."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, Any

from msgspec import Meta

from atlas_plugin.metrics.families import Families, Family, Histogram

RATE_WINDOW_S = 10.0
LATENCY_WINDOW_S = 60.0
_KEEP_EVERY_S = 1.0
_PERCENTILES = (50, 90, 99)

LAYERS = ("ram", "disk")
REUSED_FROM = ("slot", *LAYERS, "shared", "plugins")
_SOURCES = ("computed", *REUSED_FROM)


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What the server had counted at a time: `at` in monotonic seconds, `timestamp` in those since 1970."""

    at: float
    timestamp: float
    uptime_s: float = 0.0
    requests: int = 0
    active: int = 0
    completed: int = 0
    failed: int = 0
    hits: int = 0
    misses: int = 0
    answer_tokens: float = 0.0
    prompt_tokens: Mapping[str, float] = field(default_factory=dict)
    """By where their state came from."""
    layer_bytes: Mapping[str, int] = field(default_factory=dict)
    layer_budgets: Mapping[str, float] = field(default_factory=dict)
    contexts: int = 0
    contexts_in_use: int = 0
    overhead: Histogram = field(default_factory=Histogram)
    """Seconds that ATLAS itself took of each request."""
    first_token: Histogram = field(default_factory=Histogram)
    inter_token: Histogram = field(default_factory=Histogram)


def count(families: Sequence[Family]) -> Counters:
    """The counters of the families that the server has now."""
    now = Families(families)
    return Counters(
        at=time.monotonic(),
        timestamp=time.time(),
        uptime_s=now.total("atlas_uptime_seconds"),
        requests=int(now.total("atlas_requests_total")),
        active=int(now.total("atlas_requests_in_progress")),
        completed=int(now.total("atlas_requests_total", outcome="ok")),
        failed=sum(int(now.total("atlas_requests_total", outcome=how)) for how in ("error", "refused")),
        hits=int(now.total("atlas_cache_requests_total", result="hit")),
        misses=int(now.total("atlas_cache_requests_total", result="miss")),
        answer_tokens=now.total("atlas_answer_tokens_total"),
        prompt_tokens={one: now.total("atlas_prompt_tokens_total", source=one) for one in _SOURCES},
        layer_bytes={one: int(now.total("atlas_layer_bytes", layer=one)) for one in LAYERS},
        layer_budgets={one: now.total("atlas_layer_budget_bytes", layer=one) for one in LAYERS},
        contexts=int(now.total("atlas_pool_contexts")),
        contexts_in_use=int(now.total("atlas_pool_contexts_in_use")),
        overhead=now.histogram("atlas_request_overhead_seconds"),
        first_token=now.histogram("atlas_time_to_first_token_seconds"),
        inter_token=now.histogram("atlas_inter_token_seconds"),
    )


def _described(text: str) -> Meta:
    return Meta(description=text)


@dataclass(frozen=True, kw_only=True)
class Current:
    """The server's state, totals since its start, and what the last seconds were like."""

    total_requests: Annotated[int, _described("completions that ended, by clients that left too")]
    active_requests: Annotated[int, _described("completions that have begun and not ended")]
    completed_requests: Annotated[int, _described("answered to the end")]
    failed_requests: Annotated[int, _described("refused, or ended by an error")]
    avg_latency_ms: Annotated[float, _described("time in ATLAS itself a request, of the last minute's")]
    max_latency_ms: Annotated[float, _described("the upper bound of the last minute's histogram")]
    min_latency_ms: Annotated[float, _described("the lower bound of the last minute's histogram")]
    memory_usage_bytes: Annotated[int, _described("KV state that ATLAS keeps in RAM")]
    cache_hits: Annotated[int, _described("completed requests that reused tokens")]
    cache_misses: Annotated[int, _described("completed requests that reused none")]
    throughput_tokens_per_sec: Annotated[float, _described("tokens of answers, of the last 10 seconds")]
    uptime_seconds: Annotated[float, _described("since the server's start")]


@dataclass(frozen=True, kw_only=True)
class HistoryEntry(Current):
    """The same at an earlier time."""

    timestamp: Annotated[float, _described("seconds since 1970")]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """All that is read off the counters at one time; rates and percentiles are of the last minute.

    Those of nothing are None.
    """

    timestamp: float
    current: Current
    cache_hit_rate: float | None
    contexts: int
    contexts_in_use: int
    first_token_ms: Mapping[str, float | None]
    inter_token_ms: Mapping[str, float | None]
    hit_rates: Mapping[str, float | None]
    """The part of all tokens of prompts that was reused, by where from."""
    layers: Mapping[str, Mapping[str, int | None]]
    """`bytes` and `budget_bytes` of each, which is None where there is no limit."""

    def event(self) -> dict[str, Any]:
        """What the stream says of it."""
        return {
            "timestamp": round(self.timestamp, 3),
            "active_requests": self.current.active_requests,
            "avg_latency": self.current.avg_latency_ms,
            "tokens_per_second": self.current.throughput_tokens_per_sec,
            "cache_hit_rate": self.cache_hit_rate,
            "pool_contexts": self.contexts,
            "pool_contexts_in_use": self.contexts_in_use,
            "time_to_first_token_ms": self.first_token_ms,
            "inter_token_ms": self.inter_token_ms,
            "hit_rates": self.hit_rates,
            "layers": self.layers,
            "total_requests": self.current.total_requests,
            "memory_usage_bytes": self.current.memory_usage_bytes,
        }

    def history_entry(self) -> dict[str, Any]:
        """What the history says of it."""
        return {"timestamp": round(self.timestamp, 3), **vars(self.current)}


class Window:
    """The counters of the last minute, one set a second at most. For one thread at a time."""

    def __init__(self) -> None:
        self._kept: deque[Counters] = deque()

    def keep(self, now: Counters) -> None:
        """Have later readings compare with these counters."""
        if not self._kept:
            # All counters were 0 when the server started, which is as good as a reading of that time.
            self._kept.append(Counters(at=now.at - now.uptime_s, timestamp=now.timestamp - now.uptime_s))
        if now.at - self._kept[-1].at >= _KEEP_EVERY_S:
            self._kept.append(now)
        while len(self._kept) > 1 and now.at - self._kept[1].at >= LATENCY_WINDOW_S:
            self._kept.popleft()

    def read(self, now: Counters) -> Reading:
        """A reading of these counters, and of what was added in the last seconds.

        Where the window is not that long yet, what was added since its beginning counts.
        """
        recent, minute = self._before(now, RATE_WINDOW_S), self._before(now, LATENCY_WINDOW_S)
        elapsed_s = now.at - recent.at
        overhead = now.overhead.since(minute.overhead)
        least, most = overhead.range
        hits, misses = now.hits - minute.hits, now.misses - minute.misses
        current = Current(
            total_requests=now.requests,
            active_requests=now.active,
            completed_requests=now.completed,
            failed_requests=now.failed,
            avg_latency_ms=_ms(overhead.mean),
            max_latency_ms=_ms(most),
            min_latency_ms=_ms(least),
            memory_usage_bytes=now.layer_bytes.get("ram", 0),
            cache_hits=now.hits,
            cache_misses=now.misses,
            throughput_tokens_per_sec=(
                round((now.answer_tokens - recent.answer_tokens) / elapsed_s, 3) if elapsed_s > 0 else 0.0
            ),
            uptime_seconds=round(now.uptime_s, 3),
        )
        return Reading(
            timestamp=now.timestamp,
            current=current,
            cache_hit_rate=round(hits / (hits + misses), 4) if hits + misses else None,
            contexts=now.contexts,
            contexts_in_use=now.contexts_in_use,
            first_token_ms=_percentiles_ms(now.first_token.since(minute.first_token)),
            inter_token_ms=_percentiles_ms(now.inter_token.since(minute.inter_token)),
            hit_rates=_hit_rates(now.prompt_tokens, minute.prompt_tokens),
            layers={layer: _occupancy(now, layer) for layer in now.layer_bytes},
        )

    def _before(self, now: Counters, seconds: float) -> Counters:
        old_enough = (kept for kept in reversed(self._kept) if now.at - kept.at >= seconds)
        return next(old_enough, self._kept[0] if self._kept else now)


def _percentiles_ms(found: Histogram) -> dict[str, float | None]:
    quantiles = {f"p{one}": found.quantile(one / 100) for one in _PERCENTILES}
    return {name: None if seconds is None else _ms(seconds) for name, seconds in quantiles.items()}


def _hit_rates(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float | None]:
    added = {source: tokens - before.get(source, 0.0) for source, tokens in now.items()}
    everything = sum(added.values())
    return {
        source: round(added.get(source, 0.0) / everything, 4) if everything else None
        for source in REUSED_FROM
    }


def _occupancy(now: Counters, layer: str) -> dict[str, int | None]:
    budget = now.layer_budgets[layer]
    return {"bytes": now.layer_bytes[layer], "budget_bytes": int(budget) if isfinite(budget) else None}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 4)
