"""Writes a line of JSON for each request that ended: docs/cookbook/audit.md."""

import hashlib
import hmac
import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from atlas_plugin import AtlasError, CompletionRequest, StatusReport, StreamChunk, hookimpl, json_text
from atlas_plugin.host.worker import Worker
from atlas_plugin.metrics import Family, Sample
from atlas_plugin.storage.line_log import LineLog
from atlas_plugin.texts import TextKey, of_answer, of_event, of_request

log = logging.getLogger(__name__)

_LAST = 1000
"""Behind all plugins that change what the client gets."""
_SECRET = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})
_AT_ONCE = 256
_SYNC_S = 1.0

Texts = Literal["none", "hash", "text"]
Header = Annotated[str, Meta(min_length=1, max_length=100)]


class Config(Struct, forbid_unknown_fields=True, frozen=True):
    """Where to, and what of."""

    path: Annotated[str, Meta(min_length=1)]
    """The file; its directory is made where it is missing."""
    prompts: Texts = "none"
    """Whether a line has the texts of the request, or hashes of them."""
    answers: Texts = "none"
    """The same for the answer."""
    hash_key: str = ""
    """Hashes are HMAC-SHA-256 with it; empty: SHA-256, by which a guess can be checked."""
    max_characters: Annotated[int, Meta(ge=1, le=10_000_000)] = 20_000
    """Of each text that is written; the rest is left out. Hashes are of the whole text."""
    headers: Annotated[list[Header], Meta(max_length=32)] = []
    """Of the request, by name."""
    max_bytes: Annotated[int, Meta(ge=4096, le=1 << 40)] = 64 << 20
    """Of a file; then it is rotated."""
    keep: Annotated[int, Meta(ge=1, le=1000)] = 9
    """How many rotated files stay."""
    fsync: Literal["always", "second", "never"] = "second"
    """When it is made sure that a power cut leaves the lines: after each, once a second, or by the system."""
    max_waiting_bytes: Annotated[int, Meta(ge=65_536, le=1 << 32)] = 16 << 20
    """Of lines that wait because the disk takes none; more are lost, and counted."""


class Plugin:
    """Writes a line of JSON for each completion request that ended, whatever became of it."""

    def __init__(self) -> None:
        self._config = Config(path="/")
        self._file: LineLog | None = None
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._n_waiting = self._waiting_bytes = 0
        """With those that are being written."""
        self._counts = {"written": 0, "lost": 0}
        self._untold = 0
        """Lost, and not told in the file yet."""
        self._unsynced_since: float | None = None
        self._worker = Worker("atlas-audit", self._work)

    @hookimpl
    def configure(self, config: Config) -> None:
        for name in config.headers:
            if name.lower() in _SECRET:
                raise ValueError(f"headers: {name} has secrets, which belong in no log")
        self._config = config
        self._file = LineLog(Path(config.path), config.max_bytes, config.keep)

    @hookimpl
    def startup(self) -> None:
        try:
            self._log().open()
        except OSError as error:
            raise ValueError(f"path: there is no writing to {self._config.path}: {error}") from None
        self._worker.start()

    @hookimpl(deadline_ms=1000, priority=_LAST)
    def on_request(self, request: CompletionRequest, body: dict[str, Any]) -> None:
        kept = request.state.setdefault("audit", {})
        kept["model"], kept["user"] = body.get("model"), body.get("user")
        if self._config.prompts != "none":
            kept["prompt"] = [self._shown(text, self._config.prompts) for text in of_request(body)]

    @hookimpl(deadline_ms=1000, priority=_LAST)
    def on_response(self, request: CompletionRequest, answer: Any) -> None:
        if self._config.answers != "none":
            request.state.setdefault("audit", {})["answer"] = list(of_answer(answer))

    @hookimpl(deadline_ms=1000, priority=_LAST)
    def on_stream_chunk(self, request: CompletionRequest, chunk: StreamChunk) -> None:
        if self._config.answers != "none":
            texts: dict[TextKey, list[str]] = request.state.setdefault("audit", {}).setdefault("stream", {})
            for event in chunk.events:
                for text, piece in of_event(event):
                    texts.setdefault(text, []).append(piece)

    @hookimpl(deadline_ms=1000, priority=_LAST)
    def on_finished(self, request: CompletionRequest, record: dict[str, Any]) -> None:
        self._put(request, record)

    @hookimpl(deadline_ms=1000, priority=_LAST)
    def on_failed(self, request: CompletionRequest, record: dict[str, Any]) -> None:
        self._put(request, record)

    @hookimpl
    def report_status(self) -> StatusReport:
        with self._lock:
            waiting, counts = self._n_waiting, dict(self._counts)
        problem = self._worker.problem
        return StatusReport(
            data={"audit": {"waiting": waiting, **counts}},
            problems=[f"{problem}; {waiting} lines wait, {counts['lost']} are lost"] if problem else (),
        )

    @hookimpl
    def report_metrics(self) -> list[Family]:
        with self._lock:
            samples = [Sample({"result": result}, count) for result, count in self._counts.items()]
        about = "Lines of the audit log, by what became of them."
        return [Family("atlas_plugin_audit_lines_total", "counter", about, samples)]

    @hookimpl
    def shutdown(self) -> None:
        if self._file is None:
            return
        why = "the disk is too slow"
        if self._worker.stop():
            try:
                self._drain()
                self._sync()
            except OSError as error:
                why = str(error)
            self._file.close()
        if self._n_waiting:
            log.error("%d lines of the audit log are lost: %s", self._n_waiting, why)

    def _log(self) -> LineLog:
        assert self._file is not None, "configure was not called"
        return self._file

    def _put(self, request: CompletionRequest, record: dict[str, Any]) -> None:
        line = json_text.encode(self._line(request, record)) + b"\n"
        with self._lock:
            if self._waiting_bytes + len(line) > self._config.max_waiting_bytes:
                self._counts["lost"] += 1
                self._untold += 1
            else:
                self._add(line)
        self._worker.wake()

    def _add(self, line: bytes) -> None:
        self._waiting.append(line)
        self._n_waiting += 1
        self._waiting_bytes += len(line)

    def _line(self, request: CompletionRequest, record: dict[str, Any]) -> dict[str, Any]:
        kept = request.state.get("audit", {})
        headers = {name.lower(): request.headers.get(name) for name in self._config.headers}
        line = {
            "time": _time(record["ended"]),
            "request_id": request.request_id,
            "route": request.route,
            "outcome": record["outcome"],
            "who": {
                "tenant": request.tenant,
                "is_admin": request.is_admin,
                "name": request.name or None,
                "session": request.session_id,
                "user": kept.get("user"),
                "headers": headers,
            },
            "model": kept.get("model"),
            "record": record,
        }
        if "prompt" in kept:
            line["prompt"] = kept["prompt"]
        if self._config.answers != "none":
            answer = kept.get("answer") or ["".join(pieces) for pieces in kept.get("stream", {}).values()]
            line["answer"] = [self._shown(text, self._config.answers) for text in answer]
        return line

    def _shown(self, text: str, how: Texts) -> str:
        if how == "text":
            return text[: self._config.max_characters]
        key, data = self._config.hash_key.encode(), text.encode()
        if key:
            return f"hmac-sha256:{hmac.digest(key, data, 'sha256').hex()}"
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def _work(self) -> float:
        try:
            self._drain()
            now = time.monotonic()
            since = self._unsynced_since
            if since is not None and (self._config.fsync == "always" or now - since >= _SYNC_S):
                self._sync()
        except OSError as error:
            raise AtlasError(f"the audit log is not written: {error}") from None
        return 60.0 if self._unsynced_since is None else max(0.0, self._unsynced_since + _SYNC_S - now)

    def _drain(self) -> None:
        while lines := self._next():
            before, size = len(lines), sum(map(len, lines))
            try:
                self._log().append(lines)
            finally:
                # What could not be written is first in line again.
                with self._lock:
                    self._waiting.extendleft(reversed(lines))
                    self._n_waiting -= before - len(lines)
                    self._waiting_bytes -= size - sum(map(len, lines))
                    self._counts["written"] += before - len(lines)
            if self._config.fsync != "never" and self._unsynced_since is None:
                self._unsynced_since = time.monotonic()

    def _next(self) -> list[bytes]:
        """The lines that are to be written next, still counted as waiting."""
        with self._lock:
            if not self._waiting and self._untold:
                told = json_text.encode({"time": _time(time.time()), "lost": self._untold}) + b"\n"
                self._add(told)
                self._untold = 0
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]

    def _sync(self) -> None:
        if self._unsynced_since is not None:
            self._log().sync()
            self._unsynced_since = None


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
