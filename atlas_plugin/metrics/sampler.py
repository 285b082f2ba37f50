"""Reads the metrics at fixed times, on one thread, for the history and for all who follow them live."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from math import floor

from atlas_plugin.errors import RateLimitError, UnavailableError
from atlas_plugin.host.worker import Worker
from atlas_plugin.metrics.readings import Counters, Reading, Window

log = logging.getLogger("atlas")

MAX_SUBSCRIPTIONS = 512
"""Each holds one of the server's HTTP threads, of which there are about 1,024."""
SLOW_S = 30.0
"""A subscription ends when its client has not taken a reading for so long."""
_RETRY_AFTER_S = 10


class Subscription:
    """Gives one reading each interval; one that was not taken in time is replaced by the next.

    Any thread may call `close`, one at a time `wait`.
    """

    def __init__(self, sampler: "Sampler", interval_s: float) -> None:
        self.interval_s = interval_s
        self.due = 0.0
        self.ended = False
        self._sampler = sampler
        self._reading: tuple[int, Reading] | None = None
        self._offered_at = 0.0

    def wait(self, timeout_s: float) -> tuple[int, Reading] | None:
        """The next reading and its number, which rises; None when there is none in time, or `ended`."""
        with self._sampler.changed:
            self._sampler.changed.wait_for(lambda: self.ended or self._reading is not None, timeout_s)
            reading, self._reading = self._reading, None
            return None if self.ended else reading

    def close(self) -> None:
        """Ask for no more. A second call does nothing."""
        self._sampler.forget(self)

    def offer(self, now: float, number: int, reading: Reading) -> bool:
        """For the sampler: offer a reading. False where the client has taken none for SLOW_S seconds."""
        if self._reading is None:
            self._offered_at = now
        self._reading = number, reading
        return now - self._offered_at < SLOW_S


class Sampler:
    """Any thread may call all methods. `take` counts; what it raises, `read` raises.

    It samples all the time: that costs one query of the server an interval, and rates and history are
    there when somebody asks for them.
    """

    def __init__(self, take: Callable[[], Counters], interval_s: float, history_size: int) -> None:
        self.changed = threading.Condition()
        """Notified after each reading."""
        self._take = take
        self._window = Window()
        self._interval_s = interval_s
        self._due = 0.0
        self._history: deque[Reading] = deque(maxlen=history_size)
        self._number = 0
        self._subscriptions: set[Subscription] = set()
        self._stopped = False
        self._worker = Worker("atlas-metrics", self._sample)

    def start(self) -> None:
        """Begin to sample; once."""
        self._worker.start()

    def stop(self) -> None:
        """End the sampling and all subscriptions."""
        with self.changed:
            self._stopped = True
            for subscription in self._subscriptions:
                subscription.ended = True
            self._subscriptions.clear()
            self.changed.notify_all()
        self._worker.stop()

    def change(self, interval_s: float, history_size: int) -> None:
        """Sample at another interval, and keep another number of readings."""
        with self.changed:
            self._interval_s = interval_s
            self._due = 0.0
            self._history = deque(self._history, maxlen=history_size)
        self._worker.wake()

    def read(self) -> Reading:
        """A reading of this moment."""
        counters = self._take()
        with self.changed:
            return self._window.read(counters)

    def history(self) -> list[Reading]:
        """What was kept, oldest first."""
        with self.changed:
            return list(self._history)

    @property
    def subscriptions(self) -> int:
        """How many follow now."""
        return len(self._subscriptions)

    @property
    def problem(self) -> str | None:
        """Why the last sample could not be taken; None when it could."""
        return self._worker.problem

    def subscribe(self, interval_s: float) -> Subscription:
        """Follow from now on, beginning with a reading at once. Raises RateLimitError for one too many."""
        subscription = Subscription(self, interval_s)
        with self.changed:
            if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
                raise RateLimitError(
                    f"{MAX_SUBSCRIPTIONS} clients follow the metrics already; close some", _RETRY_AFTER_S
                )
            if self._stopped:
                raise UnavailableError("the server is shutting down")
            self._subscriptions.add(subscription)
        self._worker.wake()
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """End a subscription, if it has not ended."""
        with self.changed:
            subscription.ended = True
            self._subscriptions.discard(subscription)
            self.changed.notify_all()

    def _sample(self) -> float:
        counters = self._take()
        with self.changed:
            now = time.monotonic()
            self._window.keep(counters)
            reading = self._window.read(counters)
            self._number += 1
            if now >= self._due:
                self._history.append(reading)
                self._due = _next(now, self._interval_s)
            for subscription in [one for one in self._subscriptions if now >= one.due]:
                if subscription.offer(now, self._number, reading):
                    subscription.due = _next(now, subscription.interval_s)
                else:
                    subscription.ended = True
                    self._subscriptions.discard(subscription)
            self.changed.notify_all()
            due = min([self._due, *(one.due for one in self._subscriptions)])
        found = reading.current
        log.debug(
            "Metrics updated: %d requests, %.1fms avg latency", found.total_requests, found.avg_latency_ms
        )
        return max(0.0, due - time.monotonic())


def _next(now: float, interval_s: float) -> float:
    # Whole multiples, so that all subscriptions with one interval are served by the same readings.
    return (floor(now / interval_s) + 1) * interval_s
