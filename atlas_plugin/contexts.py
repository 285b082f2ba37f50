"""JSON contexts in an SQLite file: durable once `save` returns."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from atlas_plugin.errors import AtlasError, ServerError, UnavailableError

log = logging.getLogger("atlas")

SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 5.0
# `state` is last, so that SQLite reads the other columns without the pages that a large one fills.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS contexts (
    id TEXT PRIMARY KEY, created REAL NOT NULL, updated REAL NOT NULL, state BLOB NOT NULL
);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


@dataclass(frozen=True)
class ContextInfo:
    """A saved context: its size in bytes as serialised, and times in seconds since 1970."""

    context_id: str
    bytes: int
    created: float
    updated: float


class ContextStore:
    """The contexts under `directory`, in the file contexts.sqlite3. Methods may be called from any thread.

    The file is opened when it is first needed, and anew after a failure or when it was replaced on disk, so a
    repaired disk needs no restart. Operations raise ServerError when the disk or the file fails, and
    UnavailableError for a file that a newer version wrote.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "contexts.sqlite3"
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._write_problem: str | None = None

    def open(self) -> None:
        """Make the directory (0700) and the file (0600) where they are missing; check that they work."""
        with self._use("open the context store"):
            pass

    def save(self, context_id: str, state: bytes) -> ContextInfo:
        """Insert or replace a context; on return it is on disk. `created` stays that of the first save."""
        now = time.time()
        with self._use("save context state", writes=True) as connection:
            # All rows are fetched because the statement commits at its end, not at its first row.
            [(created,)] = connection.execute(
                "INSERT INTO contexts (id, created, updated, state) VALUES (?1, ?2, ?2, ?3) ON CONFLICT (id) "
                "DO UPDATE SET updated = excluded.updated, state = excluded.state RETURNING created",
                (context_id, now, state),
            ).fetchall()
        return ContextInfo(context_id, len(state), created, now)

    def load(self, context_id: str) -> tuple[ContextInfo, bytes] | None:
        """The context and its state as saved, or None where there is none."""
        with self._use("load context state") as connection:
            row = connection.execute(
                "SELECT created, updated, state FROM contexts WHERE id = ?", (context_id,)
            ).fetchone()
        if row is None:
            return None
        created, updated, state = row
        return ContextInfo(context_id, len(state), created, updated), state

    def delete(self, context_id: str) -> bool:
        """Remove a context; whether it was there."""
        with self._use("delete context state", writes=True) as connection:
            return connection.execute("DELETE FROM contexts WHERE id = ?", (context_id,)).rowcount > 0

    def page(self, limit: int, after: str = "") -> list[ContextInfo]:
        """At most `limit` contexts in the order of their ids, from the first that is greater than `after`."""
        with self._use("list contexts") as connection:
            rows = connection.execute(
                "SELECT id, length(state), created, updated FROM contexts WHERE id > ? ORDER BY id LIMIT ?",
                (after, limit),
            ).fetchall()
        return [ContextInfo(*row) for row in rows]

    def problem(self) -> str | None:
        """Why the store cannot be used now, or None. Does not wait for an operation that is under way."""
        if self._lock.acquire(blocking=False):
            try:
                self.page(1)
            except AtlasError as error:
                return error.message
            finally:
                self._lock.release()
        return self._write_problem

    def close(self) -> None:
        """Close the file; what was saved is in it already."""
        with self._lock:
            self._close()

    @contextmanager
    def _use(self, action: str, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock:
            opened = False
            try:
                connection = self._open()
                opened = True
                yield connection
            except (sqlite3.Error, OSError) as error:
                self._close()
                where = f"check the disk space and permissions of {self.path.parent}"
                message = f"Failed to {action}: {error}; {where}"
                if writes and opened:
                    self._write_problem = message
                raise ServerError(message) from error
            if writes:
                self._write_problem = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if _identity(self.path) == self._identity:
                return self._connection
            log.warning("%s was moved or replaced; opening it anew", self.path)
            self._close()
        _make_private(self.path)
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection, self.path)
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity = connection, _identity(self.path)
        return connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _make_private(path: Path) -> None:
    directory = path.parent
    if directory.is_dir():
        if directory.stat().st_mode & 0o077:
            log.warning("%s is open to other users of this machine; chmod 700 keeps them out", directory)
    else:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives its -wal and -shm files the mode of the file itself.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    [(version,)] = connection.execute("PRAGMA user_version").fetchall()
    if version > SCHEMA_VERSION:
        raise UnavailableError(
            f"{path} has schema version {version} and this ATLAS knows {SCHEMA_VERSION}: "
            "run the newer ATLAS that wrote it, or set another memory path"
        )
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if file.exists() and file.stat().st_mode & 0o077:
            file.chmod(0o600)
    [(mode,)] = connection.execute("PRAGMA journal_mode = WAL").fetchall()
    if mode != "wal":
        raise sqlite3.OperationalError(f"the file system of {path} cannot hold a write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")
    if version < SCHEMA_VERSION:
        connection.executescript(_SCHEMA)
