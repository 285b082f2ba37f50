"""A store of records in this process, which can be spoiled, and servers that share it."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from atlas_plugin import json_text
from atlas_plugin.memory.limits import Limits
from atlas_plugin.memory.record_store import RecordStore
from atlas_plugin.memory.shared_names import SharedNames
from atlas_plugin.memory.shared_sessions import SharedSessions
from atlas_plugin.storage.conversations import ConversationStore
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.sessions import SessionStore
from atlas_plugin.storage.shared_turns import SharedTurns
from atlas_plugin.testing import FakeHost


class SharedStore:
    """Answers as ATLAS_QUERY_RECORDS; its keys are (owner, part), owners by their names."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], bytes] = {}
        self.names: set[str] = set()
        self.problem: str | None = None
        """Why it does not work."""
        self.lose_answers = 0
        """So many creations are done, and fail all the same."""
        self._lock = threading.Lock()

    def __call__(self, question: Mapping[str, Any], value: bytes) -> tuple[dict[str, Any], bytes]:
        what = question["do"]
        if what == "state":
            return {"is_on": True, "address": "test://", "problem": self.problem, "retry_s": None}, b""
        if what == "name":
            return {"name": name_of(question["owner"])}, b""
        with self._lock:
            if self.problem is not None:
                return {"failure": "unreachable", "problem": self.problem}, b""
            answer: tuple[dict[str, Any], bytes] = getattr(self, f"_{what}")(question, value)
            return answer

    def _ping(self, question: Mapping[str, Any], value: bytes) -> tuple[dict[str, Any], bytes]:
        return {}, b""

    def _get(self, question: Mapping[str, Any], value: bytes) -> tuple[dict[str, Any], bytes]:
        sizes: list[int | None] = []
        values = b""
        for key in map(_key, question["keys"]):
            found = self.values.get(key)
            if found is None and not question.get("all"):
                break
            sizes.append(None if found is None else len(found))
            values += found or b""
        return {"sizes": sizes, "damaged": None, "is_enough": False}, values

    def _create(self, question: Mapping[str, Any], value: bytes) -> tuple[dict[str, Any], bytes]:
        [key] = map(_key, question["keys"])
        created = key not in self.values
        self.values.setdefault(key, value)
        if self.lose_answers:
            self.lose_answers -= 1
            return {"failure": "late", "problem": "it did not answer in time"}, b""
        return {"created": created}, b""

    def _replace(self, question: Mapping[str, Any], value: bytes) -> tuple[dict[str, Any], bytes]:
        [key] = map(_key, question["keys"])
        self.values[key] = value
        return {}, b""

    def _remove(self, question: Mapping[str, Any], value: bytes) -> tuple[dict[str, Any], bytes]:
        for key in map(_key, question["keys"]):
            self.values.pop(key, None)
        return {}, b""

    def _add_name(self, question: Mapping[str, Any], value: bytes) -> tuple[dict[str, Any], bytes]:
        self.names.add(name_of(question["owner"]))
        return {"name": name_of(question["owner"])}, b""

    def _remove_name(self, question: Mapping[str, Any], value: bytes) -> tuple[dict[str, Any], bytes]:
        self.names.discard(name_of(question["owner"]))
        return {"name": name_of(question["owner"])}, b""

    def _names(self, question: Mapping[str, Any], value: bytes) -> tuple[dict[str, Any], bytes]:
        later = sorted(name for name in self.names if name > question["after"])
        return {"names": later[: question["most"]]}, b""

    def parts(self, owner: str) -> list[str]:
        """What there is of an owner."""
        return sorted(part for name, part in self.values if name == name_of(owner))

    def turns(self) -> list[dict[str, Any]]:
        """All turns, of whatever record."""
        found = sorted((key[0], value) for key, value in self.values.items() if key[1].startswith("turn."))
        return [json_text.decode(value) for _, value in found]

    def clear(self) -> None:
        """As after a restart."""
        self.values.clear()
        self.names.clear()


def name_of(owner: str) -> str:
    """The name that the store has for an owner."""
    return owner[1:] if owner.startswith("#") else hashlib.sha256(owner.encode()).hexdigest()


def _key(key: Any) -> tuple[str, str]:
    owner, part = key
    return name_of(owner), part


Message = dict[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def exchange(text: str) -> list[Message]:
    return [user(text), assistant(f"{text}!")]


class Server:
    """What the memory plugin makes of a host, without its threads."""

    def __init__(self, path: Path, store: SharedStore, **settings: Any) -> None:
        host = FakeHost(memory_save_path=str(path), **settings)
        host.shared = store
        self.database = Database(path)
        self.turns = SharedTurns(self.database)
        self.rows = SessionStore(self.database)
        self.conversations = ConversationStore(self.database)
        self.limits = Limits(host)
        self.records = RecordStore(host)
        self.shared = SharedSessions(self.records, self.turns, self.limits, self.end)
        self.names = SharedNames(self.records, self.database, self.turns, self.end)

    def end(self, session_id: str) -> None:
        self.rows.delete([session_id])

    def say(self, text: str | Sequence[Message], session_id: str = "s") -> str | None:
        """A turn as `history: server` has it; why it is degraded."""
        first = self.shared.refresh(session_id)
        messages = exchange(text) if isinstance(text, str) else text
        return first or self.add(messages, session_id)

    def add(self, messages: Sequence[Message], session_id: str = "s") -> str | None:
        turn = self.shared.new_turn()
        self.conversations.append(session_id, messages, self.limits.max_state_bytes, turn)
        return self.shared.share(session_id)

    def record(self, session_id: str = "s") -> list[str]:
        """The texts of a session, with what others recorded."""
        self.shared.refresh(session_id)
        return self.here(session_id)

    def here(self, session_id: str = "s") -> list[str]:
        return [json_text.decode(one)["content"] for one in self.conversations.load(session_id)]

    def forget(self, session_id: str = "s") -> bool:
        found = self.shared.forget(session_id, is_here=self.rows.has(session_id))
        self.end(session_id)
        return found


Servers = Callable[..., Server]
