"""Follows the requests that ended, and has their spans delivered."""

import logging
import threading

from atlas_plugin.host.host import Host
from atlas_plugin.host.worker import Worker
from atlas_plugin.tracing.delivery import Delivery
from atlas_plugin.tracing.spans import write_spans

log = logging.getLogger("atlas")

POLL_S = 0.5
BACKLOG_SPANS = 512
"""While more of them wait for the collector, no more requests are read: the SDK would drop spans untold."""
_FAILING_S = 1.0
_NAME = "atlas-tracing"


class Follower:
    """Reads about twice a second which requests ended, on a thread of its own.

    Any thread may read what it counts. Raises ValueError for what is wrong in the environment.
    """

    def __init__(self, host: Host) -> None:
        self.missed = 0
        """Requests that the server had forgotten before they were read."""
        self._host = host
        version = host.status().get("server_version")
        self._delivery = Delivery({"service.name": "llama-server", "service.version": f"{version}"})
        self._written = 0
        self._read_up_to = 0
        self._worker = Worker(_NAME, self._follow)

    def start(self) -> None:
        """Begin with the oldest request that the server remembers; once."""
        self._worker.start()

    def stop(self, timeout_s: float) -> None:
        """Deliver what is left, for at most so many seconds, and a short while only where delivery fails."""
        if self._delivery.exporter.problem is not None:
            timeout_s = min(timeout_s, _FAILING_S)
        # On a thread of its own, as the SDK's own limit is half a minute.
        finishing = threading.Thread(target=self._finish, name=f"{_NAME}-end", daemon=True)
        finishing.start()
        finishing.join(timeout_s)
        if finishing.is_alive():
            log.warning("the last traces could not be delivered within %.1f s and are lost", timeout_s)

    @property
    def sent(self) -> int:
        """Traces that the collector has."""
        return self._delivery.exporter.sent

    @property
    def undelivered(self) -> int:
        """Traces that the collector did not take."""
        return self._delivery.exporter.lost

    @property
    def problem(self) -> str | None:
        """Why traces do not arrive; None when they do."""
        return self._worker.problem or self._delivery.exporter.problem

    def _follow(self) -> float:
        if self._written - self._delivery.exporter.spans > BACKLOG_SPANS:
            return POLL_S
        # There may be more than one answer holds.
        return 0.0 if self._read() else POLL_S

    def _read(self) -> bool:
        last, records = self._host.requests(self._read_up_to)
        model = self._host.status().get("model") if records else None
        for record in records:
            self._count_missed(record["number"])
            self._written += write_spans(self._delivery.tracer, record, model)
        return bool(records) and self._read_up_to < last

    def _count_missed(self, number: int) -> None:
        missed = number - self._read_up_to - 1
        self._read_up_to = number
        if missed > 0:
            if self.missed == 0:
                log.warning("%d requests are not traced: they ended too fast; more is only counted", missed)
            self.missed += missed

    def _finish(self) -> None:
        if self._worker.stop():
            while self._read():
                self._delivery.flush()
        self._delivery.close()
