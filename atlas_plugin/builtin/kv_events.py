"""Tells routers which blocks the memory has, where an address says at which they subscribe: docs/fleet.md."""

import logging
import sys
from typing import TYPE_CHECKING

from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host.services import Services

if TYPE_CHECKING:
    from atlas_plugin.kv_events.follower import Follower

log = logging.getLogger("atlas")


_PRIVATE = "tcp://127.", "tcp://[::1]", "tcp://localhost:", "ipc://", "inproc://"


def _is_private(address: str) -> bool:
    """Whether only this machine reaches it."""
    return address.startswith(_PRIVATE)


class KvEventsPlugin:
    """Publishes vLLM's KV events by ZeroMQ; without an address it imports nothing of that."""

    def __init__(self, services: Services) -> None:
        self._host = services.host
        self._follower: Follower | None = None
        self._problem = ""

    @hookimpl
    def startup(self) -> None:
        settings = self._host.settings()
        address = settings.text("kv_events")
        if not address:
            return
        form = settings.text("kv_events_format")
        if form not in ("maps", "arrays", "all-maps"):
            raise ValueError(
                f"--atlas-kv-events-format: '{form}' is not allowed: give maps, arrays or all-maps"
            )
        off = self._host.status()["in_effect"]["conversations_off"]
        if off:
            self._problem = f"there are no KV events: {off}"
            return
        try:
            from atlas_plugin.kv_events.follower import Follower
            from atlas_plugin.kv_events.messages import FORMATS
            from atlas_plugin.kv_events.publisher import Publisher
        except ImportError as error:
            self._problem = (
                f"there are no KV events: {error}; install the extra 'events' into {sys.prefix}: "
                "python -m pip install 'atlas-llama-server[events]'"
            )
            log.warning("%s", self._problem)
            return
        if not _is_private(address):
            log.warning("whoever reaches %s can read what conversations hold: docs/fleet.md", address)
        replay, topic = settings.text("kv_events_replay"), settings.text("kv_events_topic")
        self._follower = Follower(self._host, lambda: Publisher(address, replay, topic), FORMATS[form])
        self._follower.start()

    @hookimpl
    def report_status(self) -> StatusReport | None:
        if self._follower is None:
            return StatusReport(problems=[self._problem]) if self._problem else None
        problem = self._follower.problem
        return StatusReport(
            data={"kv_events": self._follower.facts()},
            problems=[f"KV events are not told: {problem}"] if problem else (),
        )

    @hookimpl
    def shutdown(self) -> None:
        if self._follower is not None:
            self._follower.stop()
