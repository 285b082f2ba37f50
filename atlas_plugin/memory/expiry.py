"""Asks plugins how long each session may be left unused, where one of them has the hook `session_ttl`."""

import time
from collections.abc import Callable, Mapping

from atlas_plugin.host.hooks import Hooks
from atlas_plugin.host.worker import Worker
from atlas_plugin.memory.limits import Limits
from atlas_plugin.memory.news import IdleSession
from atlas_plugin.memory.tenants import split_name
from atlas_plugin.storage.sessions import SessionStore

ROUND_S = 2.0
"""How often each session is asked about, at most."""
_PAGE = 256
_PAUSE_S = 0.25
"""Between two pages: so plugins are asked about 1,024 sessions in a second at most."""
_HOOK = "session_ttl"


class SessionExpiry:
    """Asks on a thread of its own, so that a plugin that hangs keeps nothing but old sessions.

    `hooks` are those that serve now. `end` ends the sessions that were not used since these moments.
    """

    def __init__(
        self,
        hooks: Callable[[], Hooks],
        store: SessionStore,
        limits: Limits,
        end: Callable[[Mapping[str, float]], None],
    ) -> None:
        self._hooks = hooks
        self._store = store
        self._limits = limits
        self._end = end
        self._after = ""
        self._began = 0.0
        self._is_stopping = False
        self._worker: Worker | None = None

    @property
    def is_asked(self) -> bool:
        """Whether plugins decide. From their loading on, so that nothing ends before they can be asked."""
        return bool(self._hooks().plugins_with(_HOOK))

    @property
    def problem(self) -> str | None:
        """Why the thread failed last; None where it did not."""
        return self._worker.problem if self._worker else None

    def start(self) -> None:
        """Begin; nothing where it has."""
        if self._worker is None:
            self._worker = Worker("atlas-session-ttl", self._work)
            self._worker.start()

    def stop(self) -> None:
        """End; a call that a plugin is in is left alone."""
        self._is_stopping = True
        if self._worker is not None:
            self._worker.stop()

    def _work(self) -> float:
        asked = self._hooks().plugins_with(_HOOK)
        if not asked or not all(asked.values()):
            return _PAUSE_S
        if not self._after:
            self._began = time.monotonic()
        rows = self._store.idle_page(self._after, _PAGE)
        now, due = time.time(), {}
        for row in rows:
            if self._is_stopping:
                return 0.0
            tenant, name = split_name(row.session_id)
            idle_s = max(0.0, now - row.last_used)
            session = IdleSession(name, tenant, row.tokens, row.created_at, row.last_used, idle_s)
            ttl_s = self._hooks().ask.session_ttl(session=session)
            if ttl_s is None:
                ttl_s = self._limits.ttl_of(is_conversation=row.is_conversation)
            if ttl_s > 0 and idle_s > ttl_s:
                due[row.session_id] = now - ttl_s
        if due and not self._is_stopping:
            self._end(due)
        if len(rows) == _PAGE:
            self._after = rows[-1].session_id
            return _PAUSE_S
        self._after = ""
        return max(_PAUSE_S, self._began + ROUND_S - time.monotonic())
