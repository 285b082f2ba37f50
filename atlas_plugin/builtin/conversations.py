"""Records what sessions say, and tells it to the server when a request asks for the session's history."""

import logging
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import orjson

from atlas_plugin.builtin.limits import Limits
from atlas_plugin.conversations import ConversationStore
from atlas_plugin.errors import ValidationError
from atlas_plugin.host import Host
from atlas_plugin.memory_records import MAX_CONVERSATIONS, Conversation

log = logging.getLogger("atlas")


class Recorder:
    """Any thread may call all methods; they raise what the host and the database raise."""

    def __init__(self, host: Host, store: ConversationStore, limits: Limits) -> None:
        self.recorded = 0
        self._host = host
        self._store = store
        self._limits = limits
        # Who holds it has written all that was taken off the server's queue, in its order.
        self._lock = threading.Lock()
        self._taken: deque[Conversation] = deque()

    def sync(self) -> None:
        """Write what clients sent whole, up to now."""
        with self._lock:
            full = True
            while full or self._taken:
                # What could not be written is tried again first: the server's queue is bounded, this is not.
                if not self._taken:
                    self._taken.extend(self._host.conversations())
                    full = len(self._taken) >= MAX_CONVERSATIONS
                while self._taken:
                    self._record(self._taken[0])
                    self._taken.popleft()

    def _record(self, conversation: Conversation) -> None:
        limit = self._limits.max_state_bytes
        try:
            self._store.replace(conversation.session_id, conversation.messages, limit)
        except ValidationError as error:
            # It would fail for ever, and hold up all others.
            log.warning("session %s: %s", conversation.session_id, error.message)
        else:
            self.recorded += 1

    def history(self, session_id: str) -> orjson.Fragment:
        """A session's record as a JSON array, what is in the queue included."""
        self.sync()
        return orjson.Fragment(b"[" + b",".join(self._store.load(session_id)) + b"]")

    def size(self, session_id: str) -> int:
        """The bytes of a session's record."""
        return self._store.size(session_id)

    def answer_history(self, argument: Mapping[str, Any]) -> dict[str, Any]:
        """Answers the server's call HISTORY."""
        return {"messages": self.history(argument["session_id"])}

    def answer_record(self, argument: Mapping[str, Any]) -> dict[str, Any]:
        """Answers the server's call RECORD."""
        self.sync()
        self._store.append(argument["session_id"], argument["messages"], self._limits.max_state_bytes)
        self.recorded += 1
        return {}
