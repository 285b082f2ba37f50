"""Samples at fixed times, for the history and for subscribers."""

import threading
from collections.abc import Callable, Iterator

import pytest

from atlas_plugin import RateLimitError, UnavailableError
from atlas_plugin.metrics import Reading, Sampler, sampler
from atlas_plugin.metrics.readings import Counters, count

Eventually = Callable[[Callable[[], object]], None]
StartSampler = Callable[..., Sampler]


@pytest.fixture
def start_sampler() -> Iterator[StartSampler]:
    samplers: list[Sampler] = []

    def start(
        interval_s: float = 0.01, history_size: int = 3, take: Callable[[], Counters] = lambda: count([])
    ) -> Sampler:
        samplers.append(Sampler(take, interval_s, history_size))
        samplers[-1].start()
        return samplers[-1]

    yield start
    for one in samplers:
        one.stop()


def test_history_has_the_last_samples(start_sampler: StartSampler, eventually: Eventually) -> None:
    running = start_sampler()
    eventually(lambda: len(running.history()) == 3)
    before = running.history()[-1].timestamp
    eventually(lambda: running.history()[0].timestamp > before)
    assert len(running.history()) == 3


def test_changes_take_effect_at_once(start_sampler: StartSampler, eventually: Eventually) -> None:
    running = start_sampler(interval_s=3600.0)
    eventually(lambda: len(running.history()) == 1)
    running.change(0.01, 5)
    eventually(lambda: len(running.history()) == 5)
    running.change(0.01, 0)
    assert running.history() == []


def test_each_subscriber_has_an_interval_of_its_own(start_sampler: StartSampler) -> None:
    running = start_sampler(interval_s=3600.0)
    quick, slow = running.subscribe(0.01), running.subscribe(3600.0)
    assert slow.wait(10)
    numbers = [found[0] for _ in range(5) if (found := quick.wait(10))]
    assert len(numbers) == 5
    assert numbers == sorted(set(numbers))
    assert slow.wait(0) is None


def test_those_of_one_interval_share_readings(start_sampler: StartSampler) -> None:
    running = start_sampler()
    all_of_them = [running.subscribe(0.05) for _ in range(100)]
    for subscription in all_of_them:
        assert subscription.wait(10)
    seen: list[tuple[int, Reading] | None] = [None] * len(all_of_them)

    def follow(index: int) -> None:
        seen[index] = all_of_them[index].wait(10)

    threads = [threading.Thread(target=follow, args=(index,)) for index in range(len(all_of_them))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(seen)
    assert running.subscriptions == 100


def test_a_slow_reader_gets_the_newest_and_is_given_up_in_the_end(
    start_sampler: StartSampler, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start_sampler()
    slow, other = running.subscribe(0.01), running.subscribe(0.01)
    numbers = [found[0] for _ in range(5) if (found := other.wait(10))]
    found = slow.wait(10)
    assert found
    assert found[0] >= numbers[-1]
    assert not slow.ended
    monkeypatch.setattr(sampler, "SLOW_S", 0.05)
    eventually(lambda: slow.ended)
    assert slow.wait(10) is None
    assert other.ended or other.wait(10)


def test_one_too_many(start_sampler: StartSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "MAX_SUBSCRIPTIONS", 1)
    running = start_sampler()
    first = running.subscribe(1.0)
    with pytest.raises(RateLimitError, match="1 clients follow the metrics already") as caught:
        running.subscribe(1.0)
    assert caught.value.headers == {"Retry-After": "10"}
    first.close()
    first.close()
    running.subscribe(1.0)


def test_stop_wakes_and_ends_all(start_sampler: StartSampler) -> None:
    running = start_sampler(interval_s=3600.0)
    subscription = running.subscribe(3600.0)
    assert subscription.wait(10)
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(subscription.wait(60)))
    thread.start()
    running.stop()
    thread.join(10)
    assert ended == [None]
    assert subscription.ended
    with pytest.raises(UnavailableError, match="shutting down"):
        running.subscribe(1.0)


def test_a_sample_that_fails_is_a_problem(start_sampler: StartSampler, eventually: Eventually) -> None:
    def fail() -> Counters:
        raise OSError("no counters")

    running = start_sampler(take=fail)
    eventually(lambda: running.problem == "no counters")
    with pytest.raises(OSError, match="no counters"):
        running.read()
