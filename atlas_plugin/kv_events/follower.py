"""Follows which blocks the memory has, and has that published."""

import logging
import time
from collections.abc import Callable, Sequence

from atlas_plugin.host.host import ServerHost
from atlas_plugin.host.worker import Worker
from atlas_plugin.kv_events.messages import AllBlocksCleared, Event, event_of
from atlas_plugin.kv_events.publisher import Publisher
from atlas_plugin.storage.memory_records import BlockChanges

log = logging.getLogger("atlas")

POLL_S = 0.1
WAIT_FOR_MEMORY_S = 0.5
AGAIN_S = 5.0
"""How often all is told anew, at most, for those who ask for what is kept no more."""


class Follower:
    """Works on a thread of its own, which waits for replays too. Any thread may read what it counts."""

    def __init__(
        self,
        host: ServerHost,
        make_publisher: Callable[[], Publisher],
        encode: Callable[[Sequence[Event]], bytes],
    ) -> None:
        self._host = host
        self._encode = encode
        self._make_publisher = make_publisher
        self._publisher: Publisher | None = None
        self._root = ""
        self._blocks: set[tuple[int, int]] = set()
        self._from_start = False
        self._told_anew_at = 0.0
        self._times_anew = 0
        self._worker = Worker("atlas-kv-events", self._work)

    def start(self) -> None:
        """Begin; once."""
        self._worker.start()

    def stop(self) -> None:
        """Tell what has happened since, and end."""
        if self._worker.stop() and self._publisher is not None:
            self.tell(self._root, self._publisher)
            self._publisher.close()

    @property
    def problem(self) -> str | None:
        """Why the thread failed last; None where it did not."""
        return self._worker.problem

    def facts(self) -> dict[str, int]:
        """For the status. `blocks` are those told: one in two layers counts twice."""
        publisher = self._publisher
        return {
            "blocks": len(self._blocks),
            "messages": publisher.sent if publisher else 0,
            "replays": publisher.replays if publisher else 0,
            "anew": self._times_anew,
        }

    def _work(self) -> float:
        if self._publisher is None:
            self._publisher = self._make_publisher()
        if not self._root:
            self._root = self._find_root()
            if not self._root:
                return WAIT_FOR_MEMORY_S
        self.tell(self._root, self._publisher)
        if self._publisher.serve_replays(POLL_S) and time.monotonic() >= self._told_anew_at + AGAIN_S:
            self._from_start = True
        return 0.0 if self._publisher.has_replays else POLL_S

    def _find_root(self) -> str:
        """That of this model's blocks, once it is known and all files are."""
        memory = self._host.status().get("memory") or {}
        return str(memory.get("root") or "") if memory.get("disk", {}).get("index_complete", True) else ""

    def tell(self, root: str, publisher: Publisher) -> None:
        """Have published what happened below a root; for the thread alone."""
        more = bool(root)
        while more:
            found = self._host.block_changes(root, from_start=self._from_start)
            self._from_start = False
            events = self._events_of(found)
            if found.anew:
                self._told_anew_at = time.monotonic()
                self._times_anew += 1
                if publisher.sent:
                    publisher.skip()
            if events:
                publisher.send(self._encode(events))
            more = found.more

    def _events_of(self, found: BlockChanges) -> list[Event]:
        events: list[Event] = []
        if found.anew:
            self._blocks.clear()
            events.append(AllBlocksCleared())
        for change in found.changes:
            place = (change.layer, change.key)
            if change.is_stored != (place in self._blocks):
                (self._blocks.add if change.is_stored else self._blocks.remove)(place)
                events.append(event_of(change))
        return events
