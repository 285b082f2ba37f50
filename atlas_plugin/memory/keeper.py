"""Keeps the rows of sessions in step with the server's, restores them at the start, and ends idle ones."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from atlas_plugin import facts
from atlas_plugin.errors import AtlasError, UnavailableError
from atlas_plugin.host.clock import wall_ahead
from atlas_plugin.host.hooks import Hooks
from atlas_plugin.host.host import ServerHost
from atlas_plugin.host.worker import Worker
from atlas_plugin.memory.expiry import SessionExpiry
from atlas_plugin.memory.limits import Limits
from atlas_plugin.memory.recorder import Recorder
from atlas_plugin.memory.shared_names import SharedNames
from atlas_plugin.memory.shared_sessions import SharedSessions
from atlas_plugin.storage.memory_records import Session, SessionEdit
from atlas_plugin.storage.sessions import SessionStore

log = logging.getLogger("atlas")

POLL_S = 0.5
_STEP_S = 1.0
"""The smallest jump of the clock that is noticed."""


class SessionKeeper:
    """Works on a thread of its own from `start` to `stop`; between them any thread may call the rest.

    `stored` is how many rows there are, or were a moment ago.

    `off` says why the server keeps no state of sessions, and is empty when it does. `sync`, `pin` and
    `forget` raise what the host and the database raise; the thread tries again.
    """

    def __init__(
        self,
        host: ServerHost,
        hooks: Callable[[], Hooks],
        store: SessionStore,
        limits: Limits,
        recorder: Recorder,
        shared: SharedSessions,
        names: SharedNames,
        off: str = "",
    ) -> None:
        self.written = self.expired = self.stored = 0
        self.off = off
        self._host = host
        self._store = store
        self._limits = limits
        self._recorder = recorder
        self._shared = shared
        self._names = names
        # Held from reading sessions of the server to writing them, so that a forget() between them stays in
        # effect.
        self._lock = threading.RLock()
        self._since = 0
        self._generation = store.generation
        self._is_restored = bool(off)
        self._ahead = wall_ahead()
        self._counted: tuple[int, int] | None = None
        self._unused: dict[str, float] = {}
        """The last use of sessions that were restored, and not used since, by id."""
        self._foreign: dict[str, Mapping[str, Sequence[str]]] = {}
        """The chains that were restored of sessions with more than one, by id and root."""
        self._pins: dict[str, bool] = {}
        """What users pinned and unpinned since the last time."""
        self._root: str | None = None
        self._worker = Worker("atlas-sessions", self._work)
        self._sharing = Worker("atlas-shared-sessions", self._share)
        self._expiry = SessionExpiry(hooks, store, limits, self._end_unused)

    @property
    def failures(self) -> int:
        """How often the thread failed."""
        return self._worker.failures

    @property
    def problem(self) -> str | None:
        """Why a thread failed last; None when it did not."""
        return self._worker.problem or self._expiry.problem or self._sharing.problem

    def start(self) -> None:
        """Hand the stored sessions to the server; then follow what it does with them."""
        if not self._is_restored:
            with suppress(AtlasError):  # the thread tries again, and logs it
                self._restore()
        self._worker.start()
        if self._shared.is_on:
            self._sharing.start()

    def stop(self) -> None:
        """Write what changed last, and end."""
        self._expiry.stop()
        if self._sharing.stop():
            with suppress(AtlasError):  # what waits is told by the next start
                self._share()
        if self._worker.stop():
            try:
                self.sync()
            except AtlasError as error:
                log.error("the last uses of sessions are not saved: %s", error.message)

    def sync(self) -> None:
        """Write what sessions said, and those that changed since the last time."""
        self._recorder.sync()
        self.sync_rows()

    def sync_rows(self) -> None:
        """Write the sessions that changed since the last time."""
        with self._lock:
            if self._generation != self._store.generation:
                # All rows went with their file.
                self._generation, self._since = self._store.generation, 0
                self._unused.clear()
            full = not self.off
            while full:
                sessions = self._host.sessions(since=self._since)
                full = len(sessions) >= facts.MAX_SESSIONS
                changed = [one for one in sessions if self._has_changed(one)]
                if not self._put(changed, self._pins):
                    return
                self._pins.clear()
                for one in sessions:
                    self._since = one.version

    def sync_session(self, session_id: str) -> None:
        """What `sync` does, for one session."""
        self._recorder.sync_session(session_id)
        if not self.off:
            with self._lock:
                found = self._host.sessions(ids=[session_id])
                self._put([one for one in found if one.version > self._since and self._has_changed(one)], {})

    def _put(self, sessions: Sequence[Session], pins: Mapping[str, bool]) -> bool:
        """Whether they were written: not while it is unknown which model they are of."""
        if not sessions and not pins:
            return True
        root = self._find_root()
        if root is None:
            return False
        used = [one for one in sessions if self._unused.get(one.session_id) != one.last_used]
        self._store.put(sessions, {one.session_id: self._own_chain(one, root) for one in used}, root, pins)
        self.written += len(sessions)
        self._names.note_used([one.session_id for one in used])
        self._names.note_used(pins, at_once=True)
        for one in used:
            self._unused.pop(one.session_id, None)
        return True

    def _find_root(self) -> str | None:
        """The root of the model's entries; empty where none are kept, and None before that is settled."""
        if self._root is None:
            memory = self._host.status().get("memory")
            self._root = memory.get("root", "") if memory else None
        return self._root

    def _own_chain(self, session: Session, root: str) -> Sequence[str]:
        """The keys of the chain but those that are there because other models have them."""
        chains = self._foreign.get(session.session_id, {})
        others = {key for of, keys in chains.items() if of != root for key in keys}
        return [key for key in session.chain if key not in others]

    def pin(self, session_id: str, pinned: bool) -> SessionEdit:
        """Pin or unpin a session in the server; its row follows."""
        edit = self._host.edit_session("pin" if pinned else "unpin", session_id)
        if edit.found and edit.problem is None:
            with self._lock:
                self._pins[session_id] = pinned
            self._worker.wake()
        return edit

    def forget(self, session_id: str) -> int | None:
        """Remove a session, its record and what only it uses; the bytes removed, or None without one.

        Of all servers that share; `bytes` are this one's.
        """
        self._recorder.sync_session(session_id)
        is_here = self._store.has(session_id) or bool(not self.off and self._host.sessions(ids=[session_id]))
        is_elsewhere = self._shared.forget(session_id, is_here=is_here)
        freed = self.end_here(session_id)
        return (freed or 0) if is_elsewhere or freed is not None else None

    def end_here(self, session_id: str) -> int | None:
        """The same of this server alone."""
        with self._lock:
            self._recorder.sync_session(session_id)
            self._foreign.pop(session_id, None)
            freed = self._recorder.size(session_id)
            found = self._store.delete([session_id]) > 0
            if not self.off:
                edit = self._host.edit_session("forget", session_id)
                found, freed = found or edit.found, freed + edit.bytes
        return freed if found else None

    def share(self) -> None:
        """Have other servers know all that they are to be told. Raises UnavailableError where they do not."""
        self.sync()
        while self._shared.is_on:
            before = self._shared.n_waiting + self._names.n_waiting
            self._share()
            waiting = self._shared.n_waiting + self._names.n_waiting
            if waiting == 0:
                return
            if waiting >= before:
                problem = self._shared.problem or "others are faster all the time"
                raise UnavailableError(f"{waiting} changes of sessions are not shared yet: {problem}")

    def _share(self) -> float:
        self._shared.sync()
        self._names.sync()
        return POLL_S

    def _work(self) -> float:
        if not self._is_restored:
            self._restore()
        self.sync()
        now = time.time()  # before the look at the clock, which may be put forward at any moment
        self._follow_clock()
        if self._expiry.is_asked:
            self._expiry.start()
        else:
            self._expire_unused(now, conversations=False)
            self._expire_unused(now, conversations=True)
        self._expire_beyond(self._limits.max_sessions, conversations=False)
        self._expire_beyond(self._limits.max_responses, conversations=True)
        rows = self._store.generation, self._store.changes
        if rows != self._counted:
            self.stored, self._counted = self._store.count(), rows
        return POLL_S

    def _follow_clock(self) -> None:
        """Where the clock jumped forward, move all last uses with it: nobody had time to use a session."""
        ahead = wall_ahead()
        step = ahead - self._ahead
        if step >= _STEP_S:
            self._store.put_forward(step)
            log.warning("the clock was put forward by %.0f s: sessions are no older for it", step)
        self._ahead = ahead

    def _restore(self) -> None:
        with self._lock:
            now = time.time()
            rows = self._store.page()
            while rows:
                for row in rows:
                    ttl_s = self._limits.ttl_of(is_conversation=row.is_conversation)
                    # Where plugins decide, they have not been asked yet.
                    is_alive = ttl_s <= 0 or self._expiry.is_asked or row.last_used >= now - ttl_s
                    if row.pinned or is_alive:
                        # The entries of all models, as all share the disk. The session's next turn makes its
                        # chain that of this model.
                        chain = list(dict.fromkeys(key for keys in row.chains.values() for key in keys))
                        state = {"tokens": row.tokens, "chain": chain}
                        use = {"last_used": row.last_used, "pinned": row.pinned}
                        self._host.edit_session("restore", row.session_id, **state, **use)
                        self._unused[row.session_id] = row.last_used
                        if len(row.chains) > 1:
                            self._foreign[row.session_id] = row.chains
                rows = self._store.page(rows[-1].session_id)
            self._is_restored = True

    def _expire_unused(self, now: float, *, conversations: bool) -> None:
        ttl_s = self._limits.ttl_of(is_conversation=conversations)
        if ttl_s > 0:
            oldest = now - ttl_s
            self._expire(lambda: self._store.idle_since(oldest, conversations=conversations), oldest)

    def _expire_beyond(self, limit: int, *, conversations: bool) -> None:
        if limit > 0:
            self._expire(
                lambda: self._store.idle_longest_beyond(limit, conversations=conversations), math.inf
            )

    def _expire(self, find: Callable[[], list[str]], oldest: float) -> None:
        while idle := find():
            ended = self._names.end_idle(dict.fromkeys(idle, oldest))
            with self._lock:
                # An id is damaged, or another server was faster, or uses them.
                if self._end(ended) < len(idle):
                    break

    def _end_unused(self, moments: Mapping[str, float]) -> None:
        """End those of these sessions that were not used since the moment given, and not pinned meanwhile."""
        self.sync_rows()
        idle = self._store.idle_among(moments)
        ended = self._names.end_idle({name: moments[name] for name in idle})
        with self._lock:
            self._end(ended)

    def _end(self, idle: Sequence[str]) -> int:
        if not self.off:
            for session_id in idle:
                self._host.edit_session("expire", session_id)
                self._foreign.pop(session_id, None)
        n_deleted = self._store.delete(idle) if idle else 0
        self.expired += n_deleted
        return n_deleted

    def _has_changed(self, session: Session) -> bool:
        used = self._unused.get(session.session_id) != session.last_used
        return used or session.session_id in self._pins
