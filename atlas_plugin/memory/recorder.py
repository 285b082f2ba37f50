"""Records what sessions say, and tells it to the server when a request asks for the session's history."""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from atlas_plugin import facts, json_text
from atlas_plugin.host.host import ServerHost
from atlas_plugin.memory.limits import Limits
from atlas_plugin.memory.shared_names import SharedNames
from atlas_plugin.memory.shared_sessions import SharedSessions
from atlas_plugin.responses.forms import messages_of
from atlas_plugin.storage.conversations import ConversationStore, decoded
from atlas_plugin.storage.memory_records import Conversation

log = logging.getLogger("atlas")

_PAUSE_S = 0.001
"""Between two writes: who waits for one to end gets in between."""


_BEGINS_ITEM = b'{"id":'
"""A row that is no message: parsing all of a record would take time and the GIL."""


class Recorder:
    """Any thread may call all methods; they raise what the host and the database raise."""

    def __init__(
        self,
        host: ServerHost,
        store: ConversationStore,
        limits: Limits,
        shared: SharedSessions,
        names: SharedNames,
    ) -> None:
        self.recorded = 0
        self._host = host
        self._store = store
        self._shared = shared
        self._names = names
        self._limits = limits
        # Held from taking conversations off the server's queue to writing them: so they are written in their
        # order.
        self._lock = threading.Lock()
        self._taken: list[Conversation] = []
        self._pause = threading.Event()  # never set; unlike sleep() it minds no jump of the clock

    def sync(self) -> None:
        """Write what clients sent whole, up to now: too much for a thread that a client waits for."""
        for _ in range(facts.MAX_CONVERSATIONS):
            with self._lock:
                # What could not be written is tried again before more is taken: this list has no bound of its
                # own.
                if not self._taken:
                    self._taken = self._host.conversations()
                if not self._taken:
                    return
                self._write(self._taken)
                self._taken = []
            self._pause.wait(_PAUSE_S)

    def sync_session(self, session_id: str) -> None:
        """The same for one session."""
        with self._lock:
            own = [one for one in self._taken if one.session_id == session_id]
            own += self._host.conversations(session_id)
            if own:
                self._taken = [one for one in self._taken if one.session_id != session_id] + own
                self._write(own)
                self._taken = self._taken[: -len(own)]

    def _write(self, conversations: Sequence[Conversation]) -> None:
        # Each is the whole record of its session, so only the last one of a session is written.
        records = {one.session_id: one.messages for one in conversations}
        problems = self._store.replace(records, self._limits.max_state_bytes)
        for session_id, problem in problems.items():
            log.warning("session %s: %s", session_id, problem.message)
        self.recorded += sum(one.session_id not in problems for one in conversations)

    def history(self, session_id: str) -> msgspec.Raw:
        """A session's record as a JSON array of messages, what is in the queue included."""
        self.sync_session(session_id)
        rows = self._store.load(session_id)
        if any(row.startswith(_BEGINS_ITEM) for row in rows):
            return msgspec.Raw(json_text.encode(messages_of(map(decoded, rows))))
        return msgspec.Raw(b"[" + b",".join(rows) + b"]")

    def refresh(self, session_id: str) -> str | None:
        """Bring what other servers recorded of a session here; None, or why that may be missing."""
        return self._shared.refresh(session_id)

    def size(self, session_id: str) -> int:
        """The bytes of a session's record."""
        return self._store.size(session_id)

    def answer_history(self, argument: Mapping[str, Any]) -> dict[str, Any]:
        """Answers the server's call HISTORY."""
        session_id = argument["session_id"]
        self.sync_session(session_id)
        degraded = self._shared.refresh(session_id)
        answers = self._store.exact_answers(session_id)
        return {"messages": self.history(session_id), "degraded": degraded, "answers": answers}

    def answer_record(self, argument: Mapping[str, Any]) -> dict[str, Any]:
        """Answers the server's call RECORD."""
        session_id = argument["session_id"]
        self.sync_session(session_id)
        turn = self._shared.new_turn()
        limit, exact = self._limits.max_state_bytes, argument.get("exact")
        self._store.append(session_id, argument["messages"], limit, turn, exact)
        self.recorded += 1
        self._names.note_used([session_id])
        return {"degraded": self._shared.share(session_id)}
