"""A host without a server, for tests."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from atlas_plugin import facts, json_text
from atlas_plugin.errors import ServerError
from atlas_plugin.host.client import HostClient
from atlas_plugin.host.hook_server import HookCall
from atlas_plugin.host.host import LogLevel, SessionAction
from atlas_plugin.host.settings import Settings, SettingsChange
from atlas_plugin.host.verdicts import Step
from atlas_plugin.http import Request, Response, StreamResponse
from atlas_plugin.metrics.families import Family
from atlas_plugin.storage.memory_records import (
    BlockChanges,
    Conversation,
    MemoryEvents,
    Session,
    SessionEdit,
)

_SEALED = b"ATLASEAL"
_TURNED = bytes(255 - byte for byte in range(256))


def _mark(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest().ljust(facts.SEALED_EXTRA - len(_SEALED))


class FakeHost(HostClient):
    """A host with settings of the test's choice; keeps what is logged in `records`.

    `memory_events` takes from `events`, one at a time; what was answered is in `orders`, by layer. A test
    makes sessions, and uses them, with `use_session`, and puts into `queue` what their clients sent.
    `families` are its metrics, `requests_ended` the completions that ended, oldest first. What plugins ask of
    the server is in `asked`, and `answers` has the answers: of a path a JSON value, or a function of the
    body. With an Application it answers /v1/atlas itself.
    """

    def __init__(self, **settings: Any) -> None:
        if unknown := settings.keys() - {row["name"] for row in facts.SETTINGS}:
            raise TypeError(f"no such settings: {', '.join(sorted(unknown))}")
        self.records: list[tuple[LogLevel, str]] = []
        self.memory_status: dict[str, Any] | None = {
            "ram": {"budget": 1 << 26},
            "disk": {"budget": 1 << 28},
            "root": "ab" * 32,
        }
        """What the status says of the memory; None before the model is loaded."""
        self.events: deque[MemoryEvents] = deque()
        self.block_news: deque[BlockChanges] = deque()
        self.orders: dict[int, list[list[int]]] = {1: [], 2: []}
        self.live_sessions: dict[str, Session] = {}
        self.queue: deque[Conversation] = deque()
        self.families: list[Family] = []
        self.requests_ended: list[dict[str, Any]] = []
        self.config_file: str | None = None
        self.asked: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {}
        self.routes: Callable[[Request], Response | StreamResponse] | None = None
        self.hooks: list[dict[str, Any]] = []
        self.tiers: list[dict[str, Any]] = []
        self.tables: list[int] = []
        self.tallies: list[dict[str, Any]] = []
        self.is_saved_wanted = False
        """Whether `memory_events` was last asked for what became durable, too."""
        self.pin_problem: str | None = None
        """Why a pin is refused."""
        self.shared: Callable[[Mapping[str, Any], bytes], tuple[dict[str, Any], bytes]] | None = None
        """Answers `ask_records`; None: nothing is shared."""
        self._version = 0
        self._lock = threading.Lock()
        self.entries: list[dict[str, Any]] = [
            {
                **row,
                "value": settings.get(row["name"], row["default"]),
                "origin": "flag" if row["name"] in settings else "default",
            }
            for row in facts.SETTINGS
        ]

    def log(self, level: LogLevel, text: str) -> None:
        """Keep the record."""
        self.records.append((level, text))

    def status(self) -> dict[str, Any]:
        """What a server says once its model is loaded."""
        return {
            "memory": self.memory_status,
            "notices": [],
            "initialized": True,
            "context_pool_size": 4,
            "config_file": self.config_file,
            "metrics_enabled": self.settings().flag("enable_metrics_collection"),
            "in_effect": self._in_effect(),
            "uptime_seconds": 1.5,
        }

    def _in_effect(self) -> dict[str, Any]:
        """What the settings come to. The sentences are for tests: a server's say how to turn it on."""
        settings = self.settings()
        saves = bool(settings.flag("enable_memory_persistence") and settings.text("memory_save_path"))
        keeps = saves and settings.flag("enable_auto_memory")
        counts = settings.flag("enable_metrics_collection")
        return {
            "saving_off": None if saves else "nothing is saved",
            "conversations_off": None if keeps else "no conversations are kept",
            "metrics_off": None if counts else "nothing is counted",
            "encrypted": saves
            and bool(settings.text("encryption_key_file") or settings.text("encryption_key_command")),
            "log_level": "debug" if settings.flag("verbose_logging") else settings.text("log_level"),
        }

    def settings(self) -> Settings:
        """The settings given, and changed since."""
        return Settings(self.entries)

    def change_settings(self, values: Mapping[str, Any]) -> SettingsChange:
        """Change `entries`, as a server would; of what may be wrong, it knows names, types and restarts."""
        entries = {entry["name"]: entry for entry in self.entries}
        problems = [
            {"field": name, "message": problem}
            for name, value in values.items()
            if (problem := _why_not(entries.get(name), value))
        ]
        if problems:
            return SettingsChange(problems=problems)
        for name, value in values.items():
            entries[name].update(value=value, origin="request")
        return SettingsChange(dict(values))

    def request_schema(self) -> dict[str, Any]:
        """A short one."""
        session_id = {"type": "string"}
        return {
            "request": {
                "type": "object",
                "properties": {"session_id": session_id},
                "additionalProperties": False,
            },
            "answer": {"type": "object", "properties": {"session_id": session_id}},
        }

    def memory_events(self, *, with_saved: bool = False) -> MemoryEvents:
        """The next of `events`, or none."""
        self.is_saved_wanted = with_saved
        return self.events.popleft() if self.events else MemoryEvents()

    def block_changes(self, root: str, *, from_start: bool = False) -> BlockChanges:
        """The next of `block_news`, or none."""
        return self.block_news.popleft() if self.block_news else BlockChanges()

    def set_priorities(self, layer: int, priorities: Sequence[int]) -> None:
        """Keep them in `orders`."""
        self.orders[layer].append(list(priorities))

    def sessions(self, *, since: int = 0, ids: Sequence[str] | None = None) -> list[Session]:
        """From `live_sessions`, as a server would."""
        live = list(self.live_sessions.values())
        if ids is not None:
            return [session for session in live if session.session_id in ids]
        changed = sorted((session.version, session) for session in live if session.version > since)
        return [session for _, session in changed[: facts.MAX_SESSIONS]]

    def edit_session(self, action: SessionAction, session_id: str, **state: Any) -> SessionEdit:
        """Change `live_sessions`, as a server would."""
        if action == "restore":
            if session_id not in self.live_sessions:
                self.use_session(session_id, **state)
            return SessionEdit(found=True)
        session = self.live_sessions.get(session_id)
        if session is None:
            return SessionEdit(found=False)
        if action in ("forget", "expire"):
            del self.live_sessions[session_id]
            return SessionEdit(True, session.ram_bytes + session.disk_bytes if action == "forget" else 0)
        if action == "pin" and self.pin_problem is not None:
            return SessionEdit(found=True, problem=self.pin_problem)
        self.use_session(session_id, pinned=action == "pin")
        return SessionEdit(found=True)

    def conversations(self, session_id: str = "") -> list[Conversation]:
        """From `queue`."""
        if not session_id:
            return [self.queue.popleft() for _ in range(min(len(self.queue), facts.MAX_CONVERSATIONS))]
        own = [one for one in self.queue if one.session_id == session_id]
        for one in own:
            self.queue.remove(one)
        return own

    def seal(self, name: str, data: bytes) -> bytes:
        """Turn the bits around: no encryption, but nothing can be read, or taken for another's."""
        return _SEALED + _mark(name) + data.translate(_TURNED)

    def unseal(self, name: str, data: bytes) -> bytes:
        """What `seal` was given."""
        if not data.startswith(_SEALED + _mark(name)):
            raise ServerError("it was not sealed under that name")
        return data[facts.SEALED_EXTRA :].translate(_TURNED)

    def ask_records(self, question: Mapping[str, Any], value: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Nothing is shared, unless `shared` answers."""
        return ({"is_on": False}, b"") if self.shared is None else self.shared(question, value)

    def metrics(self) -> list[Family]:
        """From `families`."""
        return list(self.families)

    def requests(self, since: int = 0) -> tuple[int, list[dict[str, Any]]]:
        """From `requests_ended`, as a server would."""
        last = self.requests_ended[-1]["number"] if self.requests_ended else 0
        return last, [record for record in self.requests_ended if record["number"] > since][
            : facts.MAX_REQUESTS
        ]

    def call_route(
        self, method: str, path: str, body: bytes, tenant: str, timeout_s: float
    ) -> tuple[int, bytes]:
        """From `answers`, or of the Application's routes."""
        document = json_text.decode(body) if body else None
        self.asked.append((path, document))
        if path in self.answers:
            answer = self.answers[path]
            return 200, json_text.encode(answer(document) if callable(answer) else answer)
        if self.routes is not None and path.startswith("/v1/atlas/"):
            given = self.routes(Request(method, path, body=body, tenant=tenant, is_admin=not tenant))
            assert isinstance(given, Response), "a plugin gets whole answers"
            return given.status, given.body
        raise AssertionError(f"FakeHost.answers has nothing for {path}")

    def set_request_hooks(self, number: int, rows: Sequence[dict[str, Any]]) -> None:
        """Keep the rows in `hooks`."""
        self.hooks = list(rows)

    def set_tiers(self, number: int, rows: Sequence[dict[str, Any]]) -> bool:
        """Keep them in `tiers`."""
        self.tiers = list(rows)
        return self.memory_status is not None

    def hook_tables(self) -> list[int]:
        """From `tables`."""
        return list(self.tables)

    def hook_tallies(self) -> list[dict[str, Any]]:
        """From `tallies`."""
        return list(self.tallies)

    def enable_hooks(self, plugin: str) -> bool:
        """Turn them on in `tallies`."""
        off = [tally for tally in self.tallies if tally["plugin"] == plugin and tally["is_off"]]
        for tally in off:
            tally["is_off"] = False
        return bool(off)

    def hook_worker_wanted(self, queue: int, has_failed: bool) -> bool:
        """No worker is needed, as no requests come."""
        return False

    def take_hook_call(self, queue: int, previous: int) -> HookCall | None:
        """There are none."""
        return None

    def hook_step(self, queue: int, number: int, step: Step) -> int:
        """Nobody waits."""
        return -1

    def read_payload(self, queue: int, number: int, size: int) -> bytearray | None:
        """Nobody waits."""
        return None

    def use_session(self, session_id: str, **state: Any) -> Session:
        """Make or change a session, as a request in it would; `state` are fields of `Session`."""
        with self._lock:
            self._version += 1
            session = self.live_sessions.get(session_id) or Session(session_id, 0, 0, (), 0.0, False, 0, 0)
            session = replace(session, version=self._version, **state)
            self.live_sessions[session_id] = session
        return session

    @property
    def log_text(self) -> str:
        """Everything logged so far, a record a line."""
        return "\n".join(text for _, text in self.records)


def _why_not(entry: Mapping[str, Any] | None, value: Any) -> str:
    if entry is None:
        return "there is no such setting"
    if entry["reload"] != "live":
        return "it needs a restart"
    numbers = (int, float) if entry["type"] == "float" else type(entry["default"])
    return "" if isinstance(value, numbers) else f"value must be a {entry['type']}"
