"""What is saved over restarts."""

from functools import cache
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_plugin.eviction import Eviction, LayerPolicy, StateError, Strategy
from atlas_plugin.eviction.state import VERSION
from tests.unit.eviction.loads import chain


def trained() -> LayerPolicy:
    policy, now = LayerPolicy(300), 1
    for turn in range(2_000):
        strategy = Strategy.LFU if turn % 5 == 0 else Strategy.ADAPTIVE
        start = 20 * (turn * turn % 37)
        touches = chain(range(start, start + 20), now, strategy, tail=turn % 3 == 0)
        now += 20
        priorities = policy.touch(touches)
        policy.evicted(Eviction(t.key, p, t.now) for t, p in zip(touches, priorities, strict=True))
    return policy


@cache
def saved() -> bytes:
    return trained().dump()


def test_it_goes_on_where_it_was_though_the_clock_starts_anew() -> None:
    policy, again = trained(), LayerPolicy(300)
    again.load(policy.dump())
    assert len(again.directory) == len(policy.directory)
    policy._make_plan()
    old = 2_000 * 20 + 1
    for turn in range(300):
        start = 20 * (turn % 40)
        here, there = (chain(range(start, start + 20), now + 20 * turn) for now in (1, old))
        graces = [
            [priority - touch.now for priority, touch in zip(side.touch(touches), touches, strict=True)]
            for side, touches in ((again, here), (policy, there))
        ]
        assert graces[0] == graces[1]
    assert any(graces[0])


def test_a_dump_of_what_was_loaded_is_the_same() -> None:
    policy = LayerPolicy(300)
    policy.load(saved())
    again = LayerPolicy(300)
    again.load(policy.dump())
    assert again.dump() == policy.dump()


def test_another_capacity_and_a_fresh_policy() -> None:
    for capacity in 1, 10, 10**12:
        policy = LayerPolicy(capacity)
        policy.load(saved())
        policy.touch(chain(range(20), 1))
    empty = LayerPolicy(5)
    empty.load(LayerPolicy(7).dump())
    assert empty.touch(chain([1], 1)) == [1]


@given(st.integers(0, 1 << 40), st.integers(1, 255))
def test_any_damage_is_noticed(place: int, change: int) -> None:
    data = bytearray(saved())
    data[place % len(data)] ^= change
    policy = LayerPolicy(300)
    with pytest.raises(StateError):
        policy.load(bytes(data))
    assert len(policy.directory) == 0


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(StateError, match="no state of an eviction policy"):
        LayerPolicy(300).load(data)


def test_what_is_wrong_is_named() -> None:
    data = saved()
    newer = data[:8] + pack("<I", VERSION + 1) + data[12:]
    for wrong, message in (
        (newer, f"has version {VERSION + 1}; this ATLAS reads version {VERSION}"),
        (data[:-1], "damaged: its checksum is wrong"),
        (data[:20], "no state"),
    ):
        with pytest.raises(StateError, match=message):
            LayerPolicy(300).load(wrong)


def test_state_from_before_anything_was_learned() -> None:
    policy = LayerPolicy(300)
    policy.touch(chain([1, 2], 1))
    again = LayerPolicy(300)
    again.load(policy.dump())
    assert len(again.directory) == 2
