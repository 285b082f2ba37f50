"""What works beside the requests: called again and again, with longer and longer waits after failures."""

import threading
from collections.abc import Callable

import pytest

from atlas_plugin import ServerError
from atlas_plugin.host import worker
from atlas_plugin.host.worker import Worker

Eventually = Callable[[Callable[[], object]], None]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the worker would have waited each time."""
    waited: list[float] = []

    def wait(worker: Worker, seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(Worker, "_sleep", wait)
    return waited


def test_failures_are_retried_ever_later(
    waits: list[float], eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    problems: list[str | None] = []
    done = threading.Event()

    def work() -> float:
        problems.append(mine.problem)
        if done.is_set():
            return 3600.0
        if len(problems) <= 10:
            raise ServerError(f"no {len(problems)}")
        if len(problems) == 11:
            return 7.0
        if len(problems) == 12:
            raise ZeroDivisionError
        done.set()
        return 5.0

    mine = Worker("mine", work)
    mine.start()
    assert done.wait(20)
    assert mine.stop()
    for number, seconds in enumerate(waits[:10]):
        assert worker.RETRY_S <= seconds <= worker.MAX_RETRY_S + worker.RETRY_S
        assert seconds >= min(worker.RETRY_S * 2**number, worker.MAX_RETRY_S)
    assert len(set(waits[:10])) == 10, "servers that failed together do not come back together"
    assert (waits[10], waits[12]) == (7.0, 5.0)
    assert waits[11] <= 2 * worker.RETRY_S, "after a success it begins anew"
    assert problems[:13] == [None, *(f"no {number}" for number in range(1, 11)), None, "ZeroDivisionError"]
    assert (mine.failures, mine.problem) == (11, None)
    assert caplog.text.count("mine: no ") == 1
    assert caplog.text.count("Traceback") == 1


def test_a_retry_can_be_hastened_and_ended(eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RETRY_S", 3600.0)
    monkeypatch.setattr(worker, "MAX_RETRY_S", 3600.0)

    def work() -> float:
        raise ServerError("no")

    mine = Worker("mine", work)
    mine.start()
    eventually(lambda: mine.failures == 1)
    mine.wake()
    eventually(lambda: mine.failures == 2)
    assert mine.stop()
