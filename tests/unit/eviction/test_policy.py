"""The policy of a layer: priorities of each strategy, learning, and what it keeps in mind."""

from itertools import count

import pytest

from atlas_cli.simulation import SimulatedLayer, key_of
from atlas_plugin.eviction import Eviction, LayerPolicy, Strategy
from atlas_plugin.eviction.policy import MAX_BRANCHES
from atlas_plugin.eviction.records import split_requests
from atlas_plugin.eviction.survival import EDGES, PERIOD
from atlas_plugin.facts import MAX_LFU_TOUCHES
from tests.unit.eviction.loads import chain


def test_requests_are_told_apart() -> None:
    first, second, third = chain([1, 2, 3], 1), chain([1, 4], 4), chain([5], 6)
    checkpoint = chain([1, 2, 9], 10)[0]
    for requests in ([first, second, third], [third, third, first], [[checkpoint, *first], second]):
        together = [touch for request in requests for touch in request]
        assert list(split_requests(together)) == requests
    assert list(split_requests([])) == []


class TestOrders:
    def test_lru_is_the_clock(self) -> None:
        assert LayerPolicy(100).touch(chain([1, 2, 3], 7, Strategy.LRU)) == [7, 8, 9]

    def test_lfu_outweighs_age_by_four_layers_for_each_touch(self) -> None:
        policy = LayerPolicy(1_000)
        (first,) = policy.touch(chain([1], 1, Strategy.LFU, size=10))
        (second,) = policy.touch(chain([1], 2, Strategy.LFU, size=10))
        (third,) = policy.touch(chain([1], 3, Strategy.LFU, size=10))
        assert (first, second, third) == (1 - 400, 2, 3 + 400)

    def test_lfu_counts_only_so_far_and_only_while_cached(self) -> None:
        policy = LayerPolicy(100)
        for now in range(1, 100):
            (priority,) = policy.touch(chain([1], now, Strategy.LFU))
        assert priority == 99 + 400 * (MAX_LFU_TOUCHES - 2)
        policy.evicted([Eviction(key_of(1), priority, 99)])
        assert policy.touch(chain([1], 100, Strategy.LFU)) == [100 - 400]

    def test_adaptive_begins_as_lru(self) -> None:
        assert LayerPolicy(100).touch(chain([1, 2, 3], 7)) == [7, 8, 9]

    def test_what_does_not_pay_goes_first(self) -> None:
        policy = LayerPolicy(100)
        (worthless,) = policy.touch(chain([1], 1_000_000, saving=-0.5))
        (scanned,) = policy.touch(chain([2], 1_000_001, Strategy.LFU))
        assert worthless < scanned


class TestMixedStrategies:
    def test_a_scan_by_an_lfu_client_leaves_a_live_chat_alone(self) -> None:
        layer = SimulatedLayer(LayerPolicy(200), 200)
        chat, other, now = list(range(50)), count(1_000), 1
        for turn in range(60):
            assert turn == 0 or all(key_of(number) in layer for number in chat)
            layer.request(chain(chat, now, Strategy.LRU))
            now += len(chat)
            scan = [next(other) for _ in range(120)]
            layer.request(chain(scan, now, Strategy.LFU))
            now += len(scan)

    def test_an_lru_client_keeps_its_chat_beside_an_adaptive_loop(self) -> None:
        layer = SimulatedLayer(LayerPolicy(400), 400)
        chat, now = list(range(20)), 1
        kept = []
        for turn in range(600):
            kept.append(all(key_of(number) in layer for number in chat))
            layer.request(chain(chat, now, Strategy.LRU))
            now += len(chat)
            for document in range(10):
                start = 1_000 + 10 * ((10 * turn + document) % 60)
                layer.request(chain(range(start, start + 10), now))
                now += 10
        assert all(kept[1:])

    def test_an_adaptive_loop_is_kept_in_part_beside_an_lru_chat(self) -> None:
        layer = SimulatedLayer(LayerPolicy(400), 400)
        hits, now = 0, 1
        for turn in range(3_000):
            layer.request(chain(range(20), now, Strategy.LRU))
            now += 20
            start = 1_000 + 20 * (turn % 22)
            hits += turn >= 2_000 and key_of(start + 19) in layer
            layer.request(chain(range(start, start + 20), now))
            now += 20
        assert hits > 300, "under lru, each would be gone before it comes again"


class TestLearning:
    def test_entries_that_return_are_kept_from_those_that_do_not(self) -> None:
        layer, now, fresh = SimulatedLayer(LayerPolicy(500), 500), 1, count(10_000)
        hits = 0
        for turn in range(1_500):
            start = 20 * (turn % 20)
            hits += turn >= 1_000 and key_of(start + 19) in layer
            for ids in (range(start, start + 20), [next(fresh) for _ in range(20)]):
                layer.request(chain(ids, now))
                now += 20
        assert hits == 500, "under lru, none would last for the 800 touches until it returns"

    def test_saving_per_byte_decides(self) -> None:
        """Two loops that do not fit together: the one whose blocks cost more to compute is kept."""
        layer, now = SimulatedLayer(LayerPolicy(1_600), 1_600), 1
        hits = [0, 0]
        for turn in range(4_000):
            cheap = turn % 2
            start = 10_000 * cheap + 10 * (turn // 2 % 15)
            hits[cheap] += turn > 2_000 and key_of(start + 9) in layer
            layer.request(chain(range(start, start + 10), now, size=10, saving=0.001 if cheap else 0.1))
            now += 10
        assert hits[0] > 750
        assert hits[1] < 100

    def test_equal_blocks_of_any_size_and_saving_decide_alike(self) -> None:
        policies = [(LayerPolicy(300), 1, 1.0), (LayerPolicy(300 << 20), 1 << 20, 2.0**-7)]
        now = 1
        for turn in range(800):
            ids = range(30 * (turn % 12), 30 * (turn % 12) + 30)
            first, second = (
                policy.touch(chain(ids, now, size=size, saving=saving)) for policy, size, saving in policies
            )
            assert first == second
            now += 30
        assert first != list(range(now - 30, now)), "there is something to compare"

    def test_a_conversation_keeps_its_coin_until_it_forks(self) -> None:
        policy = LayerPolicy(100)
        policy.touch(chain([0, 1], 1))
        coins, rows = policy.directory.coins, policy.directory.rows
        for branch in range(MAX_BRANCHES + 2):
            policy.touch(chain([0, 1, 10 + branch], 10 + 3 * branch))
        drawn = [coins[rows[key_of(10 + branch)]] for branch in range(MAX_BRANCHES + 2)]
        assert drawn[:MAX_BRANCHES] == [coins[rows[key_of(0)]]] * MAX_BRANCHES
        assert len({*drawn[MAX_BRANCHES - 1 :]}) == 3

    def test_a_request_cut_in_two_goes_on_with_the_coin_of_its_upper_half(self) -> None:
        policy = LayerPolicy(100)
        policy.touch(chain([0, 1], 1))
        touches = chain([0, 1, 2, 3], 3)
        policy.touch(touches[:2])
        policy.touch(touches[2:])
        assert len({*policy.directory.coins}) == 1


class TestWhatIsKeptInMind:
    def test_ghosts_are_bounded(self) -> None:
        policy, now, fresh = LayerPolicy(100), 1, count(1)
        most = 0
        for _ in range(1_000):
            touches = chain([next(fresh) for _ in range(200)], now)
            now += 200
            priorities = policy.touch(touches)
            policy.evicted(Eviction(t.key, p, t.now) for t, p in zip(touches, priorities, strict=True))
            most = max(most, len(policy.directory))
        edge = next(edge for edge in EDGES if edge >= policy.horizon)
        assert policy.horizon <= most <= edge + 2 * PERIOD
        assert len(policy.directory.keys) == most

    def test_lost_reports_of_evictions_do_not_fill_the_memory(self) -> None:
        policy, now, fresh = LayerPolicy(100), 1, count(1)
        for _ in range(1_000):
            policy.touch(chain([next(fresh) for _ in range(200)], now))
            now += 200
        edge = next(edge for edge in EDGES if edge >= policy.horizon)
        assert len(policy.directory) <= edge + 2 * PERIOD + 125

    def test_what_stays_cached_stays_known(self) -> None:
        policy, now, fresh = LayerPolicy(1_000), 2, count(1)
        policy.touch(chain([0], 1))
        for _ in range(1_000):
            touches = chain([next(fresh) for _ in range(200)], now)
            now += 200
            priorities = policy.touch(touches)
            policy.evicted(Eviction(t.key, p, t.now) for t, p in zip(touches, priorities, strict=True))
        assert key_of(0) in policy.directory.rows
        policy.evicted([Eviction(key_of(0), 1, now)])
        assert key_of(0) not in policy.directory.rows

    def test_an_eviction_that_is_reported_late_is_passed_over(self) -> None:
        policy = LayerPolicy(100)
        for now in 1, 5:
            policy.touch(chain([1], now, Strategy.LFU))
        policy.evicted([Eviction(key_of(1), 1, 4), Eviction(key_of(2), 1, 4)])
        assert policy.touch(chain([1], 6, Strategy.LFU)) == [6 + 400]

    def test_a_clock_that_starts_anew(self) -> None:
        policy, straight = LayerPolicy(100), LayerPolicy(100)
        for turn in range(500):
            now = 1 + 30 * turn
            policy.touch(chain(range(30), now))
            straight.touch(chain(range(30), now))
        again = policy.touch(chain(range(30), 1))
        assert again == [priority - now - 29 for priority in straight.touch(chain(range(30), now + 30))]

    def test_a_clock_that_jumps_ahead_costs_nothing(self) -> None:
        policy = LayerPolicy(100)
        policy.touch(chain([1], 1))
        assert policy.touch(chain([1], 1 << 60, Strategy.LRU)) == [1 << 60]


@pytest.mark.parametrize(
    ("size", "saving", "message"),
    [
        (0, 1.0, "size must be at least 1 byte, not 0"),
        (-5, 1.0, "size must be at least 1 byte, not -5"),
        (1, float("nan"), "saving must be a finite number of seconds, not nan"),
        (1, float("inf"), "saving must be a finite number of seconds, not inf"),
    ],
)
def test_what_is_wrong_is_named(size: int, saving: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerPolicy(100).touch(chain([1], 1, size=size, saving=saving))


def test_a_layer_without_capacity() -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1 byte, not 0"):
        LayerPolicy(0)
