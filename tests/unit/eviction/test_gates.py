"""What the adaptive strategy has to reach: on a trace of conversations, and on loads that others fail on."""

from itertools import islice

import pytest

from atlas_cli.simulation import TraceRequest, read_trace, replay
from tests.unit.eviction.loads import TRACE, generated

# Contiguous-prefix hit rates by capacity in blocks: the least for adaptive, then lru, lfu and lfu-classic as
# `atlas simulate` prints them.
CONVERSATIONS = {
    1_000: (0.076, 0.0445, 0.0492, 0.0481),
    3_000: (0.129, 0.0653, 0.0772, 0.0750),
    10_000: (0.231, 0.2116, 0.1938, 0.1317),
    30_000: (0.330, 0.3257, 0.3049, 0.2760),
    50_000: (0.353, 0.3546, 0.3447, 0.3439),
}
# Hits of the prototype that the strategy was designed with, on the first 3,000 requests.
PROTOTYPE = {1_000: 5_067, 3_000: 8_738}


@pytest.fixture(scope="module")
def conversations() -> list[TraceRequest]:
    if not TRACE.exists():
        pytest.skip("needs Mooncake's conversation_trace.jsonl; name it in ATLAS_TEST_TRACE")
    return list(read_trace(TRACE))


@pytest.mark.parametrize("capacity", CONVERSATIONS)
def test_conversations(conversations: list[TraceRequest], capacity: int) -> None:
    least, *others = CONVERSATIONS[capacity]
    rate = replay(conversations, "adaptive", capacity).prefix_rate
    assert rate >= least
    assert rate >= 0.995 * max(others)


@pytest.mark.parametrize("policy", [(1, "lru"), (2, "lfu"), (3, "lfu-classic")], ids=lambda item: item[1])
def test_the_figures_of_the_others(conversations: list[TraceRequest], policy: tuple[int, str]) -> None:
    column, name = policy
    assert round(replay(conversations, name, 1_000).prefix_rate, 4) == CONVERSATIONS[1_000][column]


@pytest.mark.parametrize("capacity", PROTOTYPE)
def test_not_below_the_prototype(conversations: list[TraceRequest], capacity: int) -> None:
    first = list(islice(conversations, 3_000))
    assert replay(first, "adaptive", capacity).prefix_hits >= PROTOTYPE[capacity]


@pytest.mark.parametrize(
    ("load", "ratio"),
    [
        ("scan", 0.9),
        ("scan", 1.1),
        ("scan", 3),
        ("loop", 0.9),
        ("loop", 1.1),
        ("shift", 1.1),
        ("shift", 3),
    ],
)
def test_synthetic_loads(load: str, ratio: float) -> None:
    """`ratio` is the size of all popular documents over the capacity."""
    requests = generated(load, 5_000, int(2_000 * ratio))
    others = [replay(requests, name, 2_000).prefix_rate for name in ("lru", "lfu", "lfu-classic")]
    assert replay(requests, "adaptive", 2_000).prefix_rate >= 0.95 * max(others)


def test_a_loop_that_does_not_fit_is_kept_in_part() -> None:
    requests = generated("loop", 5_000, 2_200)
    assert replay(requests, "lru", 2_000).prefix_hits == 0
    assert replay(requests, "adaptive", 2_000).prefix_rate > 0.6
