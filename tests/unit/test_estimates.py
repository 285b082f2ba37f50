"""Medians, ratios and slopes of measured samples."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load.estimates import (
    Estimate,
    estimate_median,
    estimate_ratio,
    is_different,
    noise_factor,
    percentile,
    slope,
)
from load.process import cpu_seconds, descriptor_count, resident_mib, thread_count

POSITIVE = st.floats(min_value=0.01, max_value=1e6)


def test_percentiles_are_interpolated() -> None:
    values = [40.0, 10.0, 20.0, 30.0]
    assert [percentile(values, percent) for percent in (0, 50, 90, 100)] == [10, 25, pytest.approx(37), 40]
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@given(st.lists(POSITIVE, min_size=1, max_size=12))
def test_an_interval_lies_within_the_samples_and_is_always_the_same(values: list[float]) -> None:
    found = estimate_median(values)
    assert min(values) <= found.low <= found.high <= max(values)
    assert found == estimate_median(values)


def test_more_rounds_narrow_the_interval() -> None:
    few, many = estimate_median([1.0, 2.0, 3.0]), estimate_median([1.0, 2.0, 3.0] * 30)
    assert many.high - many.low < few.high - few.low


def test_what_changes_between_rounds_cancels_in_a_ratio() -> None:
    base = [1.0, 10.0, 3.0, 100.0]
    assert estimate_ratio([value * 1.5 for value in base], base) == (1.5, 1.5, 1.5)
    with pytest.raises(ValueError, match="argument 2"):
        estimate_ratio([1.0], base)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.04, 1.2, False), (1.06, 1.2, True), (0.8, 0.94, True), (0.8, 0.96, False), (0.9, 1.1, False)],
)
def test_only_what_lies_wholly_beyond_the_noise_differs(low: float, high: float, expected: bool) -> None:
    noise = noise_factor(Estimate(1.0, 1 / 1.05, 1.01))
    assert noise == pytest.approx(1.05)
    assert is_different(Estimate((low + high) / 2, low, high), noise) is expected


def test_outliers_do_not_move_a_slope() -> None:
    times = [float(second) for second in range(40)]
    values = [2 * second for second in times]
    values[5] = values[20] = 1e6
    assert slope(times, values) == pytest.approx(2)
    with pytest.raises(ValueError, match="two points"):
        slope([1.0, 1.0], [1.0, 2.0])


def test_cpu_time_of_a_process_is_finer_than_a_tick() -> None:
    pid = os.getpid()
    before = cpu_seconds(pid)
    while time.process_time() - before < 0.001:
        pass
    assert before < cpu_seconds(pid) == pytest.approx(time.process_time(), abs=0.1)
    assert resident_mib(pid) > 1
    assert thread_count(pid) >= 1
    assert descriptor_count(pid) >= 3
    with pytest.raises(ProcessLookupError):
        cpu_seconds(2**22 + 1)
