"""Keeps the rows of sessions in step with the server's, restores them at the start, and ends idle ones."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from atlas_plugin.builtin.conversations import Recorder
from atlas_plugin.builtin.limits import Limits
from atlas_plugin.clock import wall_ahead
from atlas_plugin.errors import AtlasError
from atlas_plugin.host import Host
from atlas_plugin.memory_records import MAX_SESSIONS, Session, SessionEdit
from atlas_plugin.sessions import SessionStore
from atlas_plugin.worker import Worker

log = logging.getLogger("atlas")

POLL_S = 0.5
_STEP_S = 1.0
"""What the clock is put forward at once, at least, to be noticed."""


class SessionKeeper:
    """Works on a thread of its own from `start` to `stop`; between them any thread may call the rest.

    `stored` is how many rows there are, or were a moment ago.

    `off` says why the server keeps no state of sessions, and is empty when it does. `sync`, `pin` and
    `forget` raise what the host and the database raise; the thread tries again.
    """

    def __init__(
        self, host: Host, store: SessionStore, limits: Limits, recorder: Recorder, off: str = ""
    ) -> None:
        self.written = self.expired = self.stored = 0
        self.off = off
        self._host = host
        self._store = store
        self._limits = limits
        self._recorder = recorder
        # What was read from the server must be written before anybody forgets it.
        self._lock = threading.RLock()
        self._since = 0
        self._generation = store.generation
        self._is_restored = bool(off)
        self._ahead = wall_ahead()
        self._counted: tuple[int, int] | None = None
        self._unchanged: dict[str, tuple[float, bool]] = {}
        """Rows that were restored, by id: last use and pin."""
        self._worker = Worker("atlas-sessions", self._work)

    @property
    def failures(self) -> int:
        """How often the thread failed."""
        return self._worker.failures

    @property
    def problem(self) -> str | None:
        """Why the thread failed last; None when it did not."""
        return self._worker.problem

    def start(self) -> None:
        """Hand the stored sessions to the server; then follow what it does with them."""
        if not self._is_restored:
            with suppress(AtlasError):  # the thread tries again, and logs it
                self._restore()
        self._worker.start()

    def stop(self) -> None:
        """Write what changed last, and end."""
        if self._worker.stop():
            try:
                self.sync()
            except AtlasError as error:
                log.error("the last uses of sessions are not saved: %s", error.message)

    def sync(self) -> None:
        """Write the sessions that changed since the last time, and what they said."""
        with self._lock:
            self._recorder.sync()
            if self._generation != self._store.generation:
                # All rows went with their file.
                self._generation, self._since = self._store.generation, 0
                self._unchanged.clear()
            full = not self.off
            while full:
                sessions = self._host.sessions(since=self._since)
                full = len(sessions) >= MAX_SESSIONS
                changed = [session for session in sessions if self._has_changed(session)]
                if changed:
                    self._store.put(changed)
                    self.written += len(changed)
                for session in sessions:
                    self._unchanged.pop(session.session_id, None)
                    self._since = session.version

    def pin(self, session_id: str, pinned: bool) -> SessionEdit:
        """Pin or unpin a session in the server; its row follows."""
        edit = self._host.edit_session("pin" if pinned else "unpin", session_id)
        self._worker.wake()
        return edit

    def forget(self, session_id: str) -> int | None:
        """Remove a session, its record and what only it uses; the bytes removed, or None without one."""
        with self._lock:
            self._recorder.sync()
            freed = self._recorder.size(session_id)
            found = self._store.delete([session_id]) > 0
            if not self.off:
                edit = self._host.edit_session("forget", session_id)
                found, freed = found or edit.found, freed + edit.bytes
        return freed if found else None

    def _work(self) -> float:
        if not self._is_restored:
            self._restore()
        self.sync()
        now = time.time()  # before the look at the clock, which may be put forward at any moment
        self._follow_clock()
        if self._limits.session_ttl_s > 0:
            self._expire(lambda: self._store.idle_since(now - self._limits.session_ttl_s))
        if self._limits.max_sessions > 0:
            self._expire(lambda: self._store.idle_longest_beyond(self._limits.max_sessions))
        rows = self._store.generation, self._store.changes
        if rows != self._counted:
            self.stored, self._counted = self._store.count(), rows
        return POLL_S

    def _follow_clock(self) -> None:
        """Keep the age that sessions have when the clock is put forward: nobody had time to use them."""
        ahead = wall_ahead()
        step = ahead - self._ahead
        if step >= _STEP_S:
            self._store.put_forward(step)
            log.warning("the clock was put forward by %.0f s: sessions are no older for it", step)
        self._ahead = ahead

    def _restore(self) -> None:
        with self._lock:
            ttl_s = self._limits.session_ttl_s
            oldest = time.time() - ttl_s if ttl_s > 0 else 0.0
            rows = self._store.page()
            while rows:
                for row in rows:
                    if row.pinned or row.last_used >= oldest:
                        state = {"tokens": row.tokens, "chain": row.chain}
                        use = {"last_used": row.last_used, "pinned": row.pinned}
                        self._host.edit_session("restore", row.session_id, **state, **use)
                        self._unchanged[row.session_id] = row.last_used, row.pinned
                rows = self._store.page(rows[-1].session_id)
            self._is_restored = True

    def _expire(self, find: Callable[[], list[str]]) -> None:
        with self._lock:
            while idle := find():
                if not self.off:
                    for session_id in idle:
                        self._host.edit_session("expire", session_id)
                n_deleted = self._store.delete(idle)
                self.expired += n_deleted
                if n_deleted < len(idle):  # an id is damaged, or another server was faster
                    break

    def _has_changed(self, session: Session) -> bool:
        return self._unchanged.get(session.session_id) != (session.last_used, session.pinned)
