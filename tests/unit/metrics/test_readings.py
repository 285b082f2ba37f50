"""What is read off the counters, and over which time."""

from dataclasses import replace
from typing import Any

import pytest

from atlas_plugin.metrics import Family, Reading
from atlas_plugin.metrics.families import Families
from atlas_plugin.metrics.readings import Counters, Window, count
from tests.unit.metrics.making import counter, histogram


def counters(at: float, **fields: Any) -> Counters:
    return replace(Counters(at=at, timestamp=1e9 + at, uptime_s=at), **fields)


def reading_after(*states: Counters) -> Reading:
    window = Window()
    for state in states:
        window.keep(state)
    return window.read(states[-1])


def test_counters(families: list[Family]) -> None:
    now = count(families)
    assert (now.requests, now.active, now.completed, now.failed) == (11, 1, 7, 3)
    assert (now.hits, now.misses, now.answer_tokens) == (4, 3, 200.0)
    assert (now.contexts, now.contexts_in_use, now.uptime_s) == (4, 1, 8.0)
    assert (now.layer_bytes, now.layer_budgets["ram"]) == ({"ram": 4096, "disk": 1 << 20}, 1 << 20)
    none = {"disk": 0.0, "shared": 0.0, "plugins": 0.0}
    assert now.prompt_tokens == {"computed": 50.0, "slot": 20.0, "ram": 30.0, **none}
    assert (now.overhead.count, now.first_token.count, now.inter_token.count) == (3, 2, 0)


def test_families_that_are_not_there_are_zero() -> None:
    window = Window()
    now = count([])
    window.keep(now)
    assert set(vars(window.read(now).current).values()) == {0}
    assert window.read(now).cache_hit_rate is None


def test_latencies_lie_within_the_bounds_of_their_buckets(families: list[Family]) -> None:
    current = reading_after(count(families)).current
    assert (current.min_latency_ms, current.avg_latency_ms, current.max_latency_ms) == (1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("values", "expected"), [((), (0.0, 0.0)), ((0.0005,), (0.0, 0.001)), ((9.0,), (0.004, 0.004))]
)
def test_ranges_at_the_ends(values: tuple[float, ...], expected: tuple[float, float]) -> None:
    assert Families([histogram("a", *values)]).histogram("a").range == expected


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        ((), 0.5, None),
        ((0.0015,), 1.0, 0.002),
        ((0.0015, 0.0015), 0.5, 0.0015),
        ((0.0005, 0.003, 0.003, 0.003), 0.5, pytest.approx(0.002 + 0.002 / 3)),
        ((0.0005, 0.003), 0.5, 0.001),
        ((0.0005, 9.0), 0.99, 0.004),
    ],
)
def test_quantiles(values: tuple[float, ...], part: float, expected: float | None) -> None:
    assert Families([histogram("a", *values)]).histogram("a").quantile(part) == expected


def test_histograms_of_several_labels_are_added() -> None:
    one, two = histogram("a", 0.001, phase="parse"), histogram("a", 0.003, 9.0, phase="answer")
    both = Families([Family("a", "histogram", "", [*one.samples, *two.samples])]).histogram("a")
    assert (both.counts, both.count, both.sum) == ((1, 1, 2, 3), 3, 9.004)


def test_rates_begin_with_the_server(families: list[Family]) -> None:
    assert reading_after(count(families)).current.throughput_tokens_per_sec == pytest.approx(25.0)


def test_tokens_are_of_the_last_ten_seconds() -> None:
    states = [counters(at, answer_tokens=at * at) for at in range(1, 61)]
    assert reading_after(*states).current.throughput_tokens_per_sec == (60**2 - 50**2) / 10


def test_latencies_and_hits_are_of_the_last_minute() -> None:
    def overhead(*values: float) -> Families:
        return Families([histogram("a", *values), counter("b", ({}, 0))])

    old = counters(100, overhead=overhead(9.0).histogram("a"), hits=5, misses=0)
    states = [old, *(replace(old, at=at) for at in range(101, 160)), counters(160.5, hits=6, misses=1)]
    states[-1] = replace(states[-1], overhead=overhead(9.0, 0.0015).histogram("a"))
    reading = reading_after(*states)
    assert (reading.current.min_latency_ms, reading.current.max_latency_ms) == (1.0, 2.0)
    assert (reading.current.cache_hits, reading.cache_hit_rate) == (6, 0.5)


def test_hit_rates_are_of_the_last_minutes_tokens() -> None:
    before = {"computed": 100.0, "slot": 0.0, "ram": 0.0, "disk": 40.0, "shared": 0.0, "plugins": 0.0}
    after = {"computed": 110.0, "slot": 5.0, "ram": 20.0, "disk": 45.0, "shared": 0.0, "plugins": 0.0}
    states = [
        *(counters(at, prompt_tokens=before) for at in range(100, 160)),
        counters(161, prompt_tokens=after),
    ]
    rates = {"slot": 0.125, "ram": 0.5, "disk": 0.125, "shared": 0.0, "plugins": 0.0}
    assert reading_after(*states).hit_rates == rates
    assert reading_after(*states[:-1], counters(161, prompt_tokens=before)).hit_rates["ram"] is None


def test_a_long_interval_is_a_window_of_its_own() -> None:
    states = [counters(at, answer_tokens=at / 10) for at in (3600, 7200, 10800)]
    assert reading_after(*states).current.throughput_tokens_per_sec == 0.1


def test_what_is_kept_is_bounded() -> None:
    window = Window()
    for tick in range(20_000):
        window.keep(counters(tick / 100))
    assert len(window._kept) <= 62
