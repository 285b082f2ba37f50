"""Tells a receiver by HTTP of each completion that ended, with retries that outlive the server."""

import logging
import sqlite3
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from atlas_plugin import json_text
from atlas_plugin.completions import CompletionRequest
from atlas_plugin.errors import PluginError
from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host.host import Host
from atlas_plugin.metrics.families import Family, Sample
from atlas_plugin.plugins._outgoing import check_url
from atlas_plugin.plugins.webhook.delivery import Delivery, Target, read_secret
from atlas_plugin.plugins.webhook.queue import Queue
from atlas_plugin.storage import private_sqlite

log = logging.getLogger("atlas")

_NAME = "webhook"
# Nobody waits for it, and a disk may be slow.
_DEADLINE_MS = 10_000


class Config(Struct, forbid_unknown_fields=True, frozen=True):
    """Where events go, and which."""

    secret_file: Annotated[str, Meta(min_length=1)]
    url: str = ""
    url_file: str = ""
    """For a URL that holds a secret."""
    events: Annotated[list[Literal["finished", "failed"]], Meta(min_length=1)] = field(
        default_factory=lambda: ["finished"]
    )
    queue_file: str = ""
    max_queued: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    timeout_s: Annotated[float, Meta(ge=0.1, le=60)] = 10.0
    retry_max_s: Annotated[float, Meta(ge=1, le=3_600)] = 300.0
    give_up_h: Annotated[float, Meta(gt=0, le=8_760)] = 72.0
    insecure_http: bool = False

    def __post_init__(self) -> None:
        if bool(self.url) == bool(self.url_file):
            raise ValueError("url or url_file must be given, and not both")


class Plugin:
    """A webhook for completions that ended."""

    def __init__(self) -> None:
        self._queue: Queue | None = None
        self._delivery: Delivery | None = None
        self._dropped: Counter[str] = Counter({"full": 0, "unwritable": 0})
        self._lock = threading.Lock()

    @hookimpl
    def configure(self, config: Config) -> None:
        self._config = config
        self._target = Target(
            url=_url(config),
            secret=_secret(config),
            timeout_s=config.timeout_s,
            retry_max_s=config.retry_max_s,
            give_up_s=config.give_up_h * 3_600,
            insecure_http=config.insecure_http,
        )

    @hookimpl
    def startup(self, host: Host) -> None:
        memory_path = host.settings().text("memory_save_path")
        path = private_sqlite.place(self._config.queue_file, memory_path, _NAME)
        if path is None:
            raise PluginError(_NAME, "wrong configuration: queue_file, or a memory path, must be given")
        try:
            self._queue = Queue(path, self._config.max_queued)
        except (OSError, sqlite3.Error) as error:
            raise PluginError(_NAME, f"wrong configuration: queue_file: {path}: {error}") from None
        self._delivery = Delivery(self._queue, self._target)
        self._delivery.start()

    @hookimpl(deadline_ms=_DEADLINE_MS)
    def on_finished(self, request: CompletionRequest, record: dict[str, Any]) -> None:
        self._put("finished", request, record)

    @hookimpl(deadline_ms=_DEADLINE_MS)
    def on_failed(self, request: CompletionRequest, record: dict[str, Any]) -> None:
        self._put("failed", request, record)

    @hookimpl
    def report_status(self) -> StatusReport | None:
        queue, delivery = self._queue, self._delivery
        if queue is None or delivery is None:
            return None
        problems = []
        if delivery.problem is not None:
            problems.append(f"the webhook's receiver {self._target.name} fails: {delivery.problem}")
        if queue.length >= self._config.max_queued:
            problems.append("the webhook's queue is full: its oldest events are dropped for new ones")
        data = {"queued": queue.length, "delivered": delivery.attempts["delivered"], "dropped": self._drops()}
        return StatusReport({_NAME: data}, problems)

    @hookimpl
    def report_metrics(self) -> list[Family]:
        queue, delivery = self._queue, self._delivery
        if queue is None or delivery is None:
            return []
        attempts = [Sample({"result": result}, count) for result, count in delivery.attempts.items()]
        drops = [Sample({"reason": reason}, count) for reason, count in self._drops().items()]
        return [
            Family("atlas_webhook_attempts_total", "counter", "Attempts to deliver an event.", attempts),
            Family("atlas_webhook_dropped_total", "counter", "Events that nobody got.", drops),
            Family("atlas_webhook_queued", "gauge", "Events to be delivered.", [Sample(value=queue.length)]),
        ]

    @hookimpl
    def shutdown(self) -> None:
        if self._delivery is None or self._delivery.stop():
            if self._queue is not None:
                self._queue.close()
        else:
            log.warning("the webhook still waits for its receiver; its event stays in the queue")

    def _put(self, event: str, request: CompletionRequest, record: dict[str, Any]) -> None:
        queue, delivery = self._queue, self._delivery
        if event not in self._config.events or queue is None or delivery is None:
            return
        event_id = uuid.uuid4().hex
        document = {
            "id": event_id,
            "type": f"completion.{event}",
            "timestamp": time.time(),
            # Whom the plugin `bearer` let in.
            "name": request.name or None,
            "path": request.route,
            "data": record,
        }
        try:
            dropped = queue.put(event_id, json_text.encode_strictly(document))
        except (OSError, sqlite3.Error):
            self._count_dropped("unwritable", 1)
            raise
        if dropped:
            self._count_dropped("full", dropped)
        delivery.wake()

    def _count_dropped(self, reason: str, count: int) -> None:
        with self._lock:
            is_first = not self._dropped[reason]
            self._dropped[reason] += count
        if is_first:
            log.warning("the webhook drops events (%s): atlas_webhook_dropped_total counts them", reason)

    def _drops(self) -> dict[str, int]:
        expired = self._delivery.expired if self._delivery else 0
        with self._lock:
            return {**self._dropped, "expired": expired}


def _url(config: Config) -> str:
    source = "url" if config.url else "url_file"
    try:
        url = config.url or Path(config.url_file).read_text(encoding="ascii").strip()
        check_url(url, insecure=config.insecure_http)
    except (OSError, ValueError) as error:
        raise PluginError(_NAME, f"wrong configuration: {source}: {error}") from None
    return url


def _secret(config: Config) -> bytes:
    try:
        return read_secret(Path(config.secret_file))
    except (OSError, ValueError) as error:
        raise PluginError(_NAME, f"wrong configuration: secret_file: {error}") from None
