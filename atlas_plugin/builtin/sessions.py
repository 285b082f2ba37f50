"""Keeps the rows of sessions in step with the server's, restores them at the start, and ends idle ones."""

import logging
import threading
import time
from contextlib import suppress

from atlas_plugin.errors import AtlasError
from atlas_plugin.host import Host
from atlas_plugin.memory_records import MAX_SESSIONS, Session, SessionEdit
from atlas_plugin.sessions import SessionStore
from atlas_plugin.worker import Worker

log = logging.getLogger("atlas")

POLL_S = 0.5


class SessionKeeper:
    """Works on a thread of its own from `start` to `stop`; between them any thread may call the rest.

    `ttl_s`: seconds after which a session that nobody used ends, unless it is pinned; 0: never. `sync`, `pin`
    and `forget` raise what the host and the database raise; the thread tries again.
    """

    def __init__(self, host: Host, store: SessionStore, ttl_s: float) -> None:
        self.written = self.expired = 0
        self._host = host
        self._store = store
        self._ttl_s = ttl_s
        # What was read from the server must be written before anybody forgets it.
        self._lock = threading.RLock()
        self._since = 0
        self._is_restored = False
        self._unchanged: dict[str, tuple[float, bool]] = {}
        """Rows that were restored, by id: last use and pin."""
        self._worker = Worker("atlas-sessions", self._work)

    @property
    def failures(self) -> int:
        """How often the thread failed."""
        return self._worker.failures

    def start(self) -> None:
        """Hand the stored sessions to the server; then follow what it does with them."""
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
        """Write the sessions that changed since the last time."""
        with self._lock:
            full = True
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
        """Remove a session and what only it uses; the bytes of KV removed, or None where there is none."""
        with self._lock:
            stored = self._store.delete([session_id])
            edit = self._host.edit_session("forget", session_id)
        return edit.bytes if stored or edit.found else None

    def _work(self) -> float:
        if not self._is_restored:
            self._restore()
        self.sync()
        if self._ttl_s > 0:
            self._expire()
        return POLL_S

    def _restore(self) -> None:
        with self._lock:
            oldest = time.time() - self._ttl_s if self._ttl_s > 0 else 0.0
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

    def _expire(self) -> None:
        with self._lock:
            while idle := self._store.idle_since(time.time() - self._ttl_s):
                for session_id in idle:
                    self._host.edit_session("expire", session_id)
                self.expired += self._store.delete(idle)

    def _has_changed(self, session: Session) -> bool:
        return self._unchanged.get(session.session_id) != (session.last_used, session.pinned)
