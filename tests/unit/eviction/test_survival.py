"""The life table and the plan made of it, against plain counting."""

from random import Random

import pytest

from atlas_plugin.eviction import LayerPolicy
from atlas_plugin.eviction.plan import BANDS, NO_GRACE, Flows, Grace, band_of, make_plan
from atlas_plugin.eviction.survival import BUCKETS, CLASSES, EDGES, MAX_HORIZON, LifeTable, buckets_below
from tests.unit.eviction.loads import chain


def test_the_table_counts_what_entered_each_age_and_what_was_touched_in_it() -> None:
    random, policy = Random(1), LayerPolicy(10**9)
    touched: dict[int, list[int]] = {}
    for now in range(1, 40_001):
        number = int(random.expovariate(1 / 300))
        touched.setdefault(number, []).append(now)
        policy.touch(chain([number], now))
    table, end = policy.table, policy.table.cohorts[-2].end
    assert end >= 36_000
    entered, hits = [0] * BUCKETS, [0] * BUCKETS
    for times in touched.values():
        for start, stop in zip(times, [*times[1:], 1 << 60], strict=True):
            for bucket in range(BUCKETS):
                entered[bucket] += stop - start >= EDGES[bucket] and start + EDGES[bucket] <= end
                hits[bucket] += EDGES[bucket] <= stop - start < EDGES[bucket + 1]
    # The half life is billions of touches: what was counted has not faded.
    for bucket in range(buckets_below(20_000)):
        assert sum(table.hits[bucket::BUCKETS]) == pytest.approx(hits[bucket], rel=1e-4)
        # Cohorts that are only in part of an age are not counted yet.
        counted = sum(table.entered[bucket::BUCKETS])
        assert 0.9 * entered[bucket] - 50 <= counted <= entered[bucket] + 1e-6


def table_of(hazards: dict[int, list[float]]) -> LifeTable:
    """A table with much evidence for hazards by class; 0 in later buckets."""
    table = LifeTable()
    table.time = 1e6
    for number, values in hazards.items():
        alive = 1e6
        for bucket in range(BUCKETS):
            hazard = values[bucket] if bucket < len(values) else 0.0
            table.entered[number * BUCKETS + bucket] = alive
            table.hits[number * BUCKETS + bucket] = alive * hazard
            alive *= 1 - hazard
    return table


def flows_of(*items: tuple[int, int, float, float]) -> Flows:
    flows = Flows()
    for band, number, size, saving in items:
        flows.sizes[band * CLASSES + number] = size
        flows.savings[band * CLASSES + number] = saving
    return flows


class TestPlan:
    def test_the_class_that_brings_more_for_its_bytes_comes_first(self) -> None:
        table = table_of({0: [0.1], 1: [0.9]})
        flows = flows_of((50, 0, 1e6, 1e6), (50, 1, 1e6, 1e6))
        plan = make_plan(table, flows, 40, MAX_HORIZON)
        assert plan[50 * CLASSES + 1] == Grace(64, 64, 0.0)
        assert plan[50 * CLASSES][:2] == (0, 64)
        assert plan[50 * CLASSES].share == pytest.approx(0.08, abs=0.01)

    def test_a_worthy_band_comes_before_a_likelier_class(self) -> None:
        table = table_of({0: [0.1], 1: [0.4]})
        flows = flows_of((54, 0, 1e6, 16e6), (50, 1, 1e6, 1e6))
        plan = make_plan(table, flows, 60, MAX_HORIZON)
        assert plan[54 * CLASSES][:2] == (0, 64)
        assert plan[54 * CLASSES].share == pytest.approx(0.99, abs=0.01)
        assert plan[50 * CLASSES + 1] == NO_GRACE

    def test_a_bump_in_the_hazard_is_planned_for_as_a_whole(self) -> None:
        quiet = buckets_below(5_000)
        table = table_of({0: [0.0] * quiet + [0.8]})
        flows = flows_of((50, 0, 1e6, 1e6))
        full = make_plan(table, flows, 1e9, MAX_HORIZON)[50 * CLASSES]
        assert full == Grace(EDGES[quiet + 1], EDGES[quiet + 1], 0.0)
        short, long, share = make_plan(table, flows, 1_000, MAX_HORIZON)[50 * CLASSES]
        assert (short, long) == (0, EDGES[quiet + 1])
        assert 0.1 < share < 0.3

    def test_nothing_beyond_the_horizon(self) -> None:
        table = table_of({0: [0.5] * BUCKETS})
        plan = make_plan(table, flows_of((50, 0, 1e6, 1e6)), 1e12, 10_000)
        assert plan[50 * CLASSES].long == EDGES[buckets_below(10_000)]

    def test_without_knowledge_there_is_no_grace(self) -> None:
        plan = make_plan(LifeTable(), Flows(), 1e9, MAX_HORIZON)
        assert plan[CLASSES:] == [NO_GRACE] * (BANDS - 1) * CLASSES


def test_bands_are_factors_of_two_of_saving_per_byte() -> None:
    assert band_of(1 << 20, 0.5) == band_of(1 << 21, 1.0) == band_of(1 << 20, 0.9)
    assert band_of(1 << 20, 1.0) == band_of(1 << 20, 0.5) + 1
    assert band_of(1, 0.0) == band_of(1, -3.0) == 0
    assert band_of(1 << 62, 1e-300) == 1
    assert band_of(1, 1e300) == BANDS - 1
