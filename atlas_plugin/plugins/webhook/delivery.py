"""Delivers events, one after the other, on a thread of its own.

They are signed as https://www.standardwebhooks.com has it.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from atlas_plugin.host.worker import Worker
from atlas_plugin.plugins._outgoing import Outgoing, check_url
from atlas_plugin.plugins.webhook.queue import Event, Queue
from atlas_plugin.version import __version__

log = logging.getLogger("atlas")

MIN_SECRET_BYTES = 16
_SECRET_PREFIX = b"whsec_"
_MAX_ANSWER_BYTES = 4_096
_IDLE_S = 3_600.0
# These say that the event is at fault, all others that the receiver is.
_REFUSALS = frozenset({400, 413, 415, 422})


@dataclass(frozen=True)
class Target:
    """Where events go."""

    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    timeout_s: float
    retry_max_s: float
    give_up_s: float
    insecure_http: bool

    @property
    def name(self) -> str:
        """The receiver, without what may be secret."""
        return check_url(self.url, insecure=True).netloc


def read_secret(path: Path) -> bytes:
    """The secret in a file: any bytes, or base64 after `whsec_`. Raises OSError and ValueError."""
    secret = path.read_bytes().strip()
    if secret.startswith(_SECRET_PREFIX):
        try:
            secret = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError(f"what follows whsec_ in {path} is no base64") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"{path} holds fewer than {MIN_SECRET_BYTES} bytes")
    return secret


def signature(secret: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`."""
    digest = hmac.digest(secret, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


class Delivery:
    """Takes events off the queue once they are delivered. Any thread may read what it counts."""

    def __init__(self, queue: Queue, target: Target) -> None:
        self.attempts: Counter[str] = Counter({"delivered": 0, "failed": 0, "refused": 0})
        self.expired = 0
        self._problem: str | None = None
        self._queue = queue
        self._target = target
        self._failures = 0
        self._not_before = 0.0
        self._running: Outgoing | None = None
        self._stopping = threading.Event()
        self._worker = Worker("atlas-webhook", self._work)

    @property
    def problem(self) -> str | None:
        """Why the last attempt failed; None when it did not."""
        return self._problem or self._worker.problem

    def start(self) -> None:
        """Begin with what an earlier server left; once."""
        self._worker.start()

    def wake(self) -> None:
        """There is something new."""
        self._worker.wake()

    def stop(self) -> bool:
        """End at once, also an attempt that goes on; whether it ended. What is left stays in the queue."""
        self._stopping.set()
        if (running := self._running) is not None:
            running.abort()
        return self._worker.stop()

    def _work(self) -> float:
        self.expired += self._queue.expire(self._target.give_up_s)
        if (left := self._not_before - time.monotonic()) > 0:
            # Woken by a new event, while the receiver is let rest.
            return left
        event = self._queue.first()
        if event is None:
            due = self._queue.next_due_s()
            return _IDLE_S if due is None else due
        try:
            status = self._send(event)
        except OSError as error:
            return self._rest(str(error))
        if 200 <= status < 300:
            self.attempts["delivered"] += 1
            self._queue.remove(event)
            self._recover()
        elif status in _REFUSALS:
            self.attempts["refused"] += 1
            log.warning("the webhook's receiver %s refused an event with %d", self._target.name, status)
            self._queue.postpone(event, self._backoff_s(event.refusals))
            self._recover()
        else:
            redirected = "; redirects are not followed" if 300 <= status < 400 else ""
            return self._rest(f"it answered {status}{redirected}")
        return 0.0

    def _send(self, event: Event) -> int:
        timestamp = int(time.time())
        self._running = Outgoing(
            "POST",
            self._target.url,
            event.body,
            {
                "Content-Type": "application/json",
                "User-Agent": f"ATLAS/{__version__}",
                "webhook-id": event.id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signature(self._target.secret, event.id, timestamp, event.body),
            },
            timeout_s=self._target.timeout_s,
            max_bytes=_MAX_ANSWER_BYTES,
            insecure=self._target.insecure_http,
        )
        try:
            if self._stopping.is_set():
                raise TimeoutError("the server stops")
            return self._running.send().status
        finally:
            self._running = None

    def _rest(self, why: str) -> float:
        """Let the receiver rest after a failure; how long."""
        self.attempts["failed"] += 1
        if self._problem is None and not self._stopping.is_set():
            log.warning("the webhook's receiver %s failed, later tries go on: %s", self._target.name, why)
        self._problem = why
        seconds = self._backoff_s(self._failures)
        self._failures += 1
        self._not_before = time.monotonic() + seconds
        return seconds

    def _recover(self) -> None:
        if self._problem is not None:
            log.info("the webhook's receiver %s takes events again", self._target.name)
        self._problem, self._failures = None, 0

    def _backoff_s(self, failures: int) -> float:
        return float(min(self._target.retry_max_s, 2.0 ** min(failures, 32)) * random.uniform(0.5, 1.0))
