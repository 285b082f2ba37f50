"""Tells plugins what became durable, and what was restored: the hooks `on_saved` and `on_restored`."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

from atlas_plugin import facts
from atlas_plugin.eviction.records import Kind
from atlas_plugin.host.hooks import Hooks
from atlas_plugin.host.host import ServerHost
from atlas_plugin.host.worker import Worker
from atlas_plugin.memory.news import Restored, Saved
from atlas_plugin.memory.tenants import split_name
from atlas_plugin.storage.memory_records import SavedEntry, Session

POLL_S = 0.2
_SAVED, _RESTORED = "on_saved", "on_restored"
_MAX_WAITING = 65_536
"""Entries that became durable and of which plugins were not told yet."""
_MAX_OWNERS = 65_536
"""Of how many entries it is known whose they are: those of the sessions that changed last."""
_MAX_KEYS = 1024
"""From the end of a session that changed: what it had before is known."""


class Teller:
    """Tells on a thread of its own: a plugin that is late holds up that alone. Any thread may call it.

    `hooks` are those that serve now.
    """

    def __init__(self, host: ServerHost, hooks: Callable[[], Hooks]) -> None:
        self._host = host
        self._hooks = hooks
        self._lock = threading.Lock()
        self._waiting: deque[SavedEntry] = deque()
        self._owners: OrderedDict[int, str] = OrderedDict()
        self._version = 0
        self._untold = 0
        self._read_up_to: int | None = 0
        self._worker: Worker | None = None
        self._is_stopping = False

    @property
    def wants_saved(self) -> bool:
        """Whether a plugin has `on_saved`; from its loading on."""
        return bool(self._hooks().plugins_with(_SAVED))

    @property
    def untold(self) -> int:
        """Of how much no plugin was told, as too much waited."""
        return self._untold

    @property
    def problem(self) -> str | None:
        """Why the thread failed last; None where it did not."""
        return self._worker.problem if self._worker else None

    def begin(self, *, is_start: bool) -> None:
        """Start the thread where a plugin has one of the hooks, and it has not started.

        is_start: what was restored since the server's start is told, too.
        """
        hooks = self._hooks()
        if self._worker is None and (hooks.plugins_with(_SAVED) or hooks.plugins_with(_RESTORED)):
            self._read_up_to = 0 if is_start else None
            self.start()

    def start(self) -> None:
        """Start the thread; once."""
        self._worker = Worker("atlas-memory-news", self._work)
        self._worker.start()

    def add(self, saved: Sequence[SavedEntry]) -> None:
        """Have `on_saved` told of these, or count them where too many wait."""
        with self._lock:
            taken = saved[: max(0, _MAX_WAITING - len(self._waiting))]
            self._waiting.extend(taken)
            self._untold += len(saved) - len(taken)

    def stop(self) -> None:
        """Tell nothing more; a call that a plugin is in is left alone."""
        self._is_stopping = True
        if self._worker is not None:
            self._worker.stop()

    def _work(self) -> float:
        hooks = self._hooks()
        saving, restoring = hooks.plugins_with(_SAVED), hooks.plugins_with(_RESTORED)
        if not all((saving | restoring).values()):
            return POLL_S  # their startup is not over
        if restoring:
            self._tell_restored(hooks.ask)
        else:
            self._read_up_to = None
        self._tell_saved(hooks.ask if saving else None)
        return POLL_S

    def _tell_saved(self, ask: Any) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, deque()
        if ask is None or not batch:
            return
        self._follow_sessions()
        for entry in batch:
            if self._is_stopping:
                return
            tenant, session_id = split_name(self._owners.get(entry.key, ""))
            ask.on_saved(
                saved=Saved(
                    key=entry.key,
                    parent=entry.parent,
                    kind=Kind(entry.kind),
                    tokens=entry.n_tokens,
                    bytes=entry.size,
                    seconds=entry.seconds,
                    session_id=session_id,
                    tenant=tenant,
                )
            )

    def _tell_restored(self, ask: Any) -> None:
        if self._read_up_to is None:
            self._read_up_to, _ = self._host.requests(2**53)
            return
        last, records = self._host.requests(self._read_up_to)
        while records:
            for record in records:
                self._untold += record["number"] - self._read_up_to - 1
                self._read_up_to = record["number"]
                if self._is_stopping:
                    return
                if record["memory"]["result"] == "restored":
                    ask.on_restored(restored=_restored(record))
            if self._read_up_to >= last:
                return
            last, records = self._host.requests(self._read_up_to)

    def _follow_sessions(self) -> None:
        while sessions := self._host.sessions(since=self._version):
            self._version = sessions[-1].version
            for session in sessions:
                self._note(session)
            if len(sessions) < facts.MAX_SESSIONS:
                break

    def _note(self, session: Session) -> None:
        for name in session.chain[-_MAX_KEYS:]:
            key = key_of(name)
            self._owners[key] = session.session_id
            self._owners.move_to_end(key)
        while len(self._owners) > _MAX_OWNERS:
            self._owners.popitem(last=False)


def key_of(name: str) -> int:
    """The key of a Touch for the name of an entry in a session's chain."""
    return max(1, int.from_bytes(bytes.fromhex(name[:16]), "little"))


def _restored(record: dict[str, Any]) -> Restored:
    _, session_id = split_name(record["session_id"])
    return Restored(
        layer=record["memory"]["layer"],
        tokens=record["tokens"]["reused"],
        prompt_tokens=record["tokens"]["prompt"],
        seconds=(record["ms"]["restore"] or 0.0) / 1000,
        request_id=record["request_id"],
        route=record["route"],
        session_id=session_id,
        tenant=record["tenant"],
    )
