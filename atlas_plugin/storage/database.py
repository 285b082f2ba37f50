"""The SQLite file under the memory path: saved documents, sessions, conversations. A commit is durable."""

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from atlas_plugin.errors import AtlasError, ServerError, UnavailableError
from atlas_plugin.storage import private_files
from atlas_plugin.storage.sealed_rows import seal_rows
from atlas_plugin.storage.sealing import Sealing

log = logging.getLogger("atlas")

SCHEMA_VERSION = 6
_BUSY_TIMEOUT_S = 5.0
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
# `state`, `chain` and `message` are last: SQLite then reads the others without the pages that they fill.
# Of a turn that has no number, other servers do not know.
# A session that a client made as a conversation has `metadata`.
# A chain belongs to a model: `root` is that of its entries, and empty for what an older version wrote.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS contexts (
    id TEXT PRIMARY KEY, created REAL NOT NULL, updated REAL NOT NULL, state BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions (
    session_id TEXT PRIMARY KEY, tokens INTEGER NOT NULL, last_used REAL NOT NULL, pinned INTEGER NOT NULL,
    created_at REAL NOT NULL, metadata BLOB
);
CREATE TABLE IF NOT EXISTS chains (
    session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, root TEXT NOT NULL, used REAL NOT NULL,
    chain BLOB NOT NULL, PRIMARY KEY (session_id, root)
);
CREATE TABLE IF NOT EXISTS messages (
    session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, position INTEGER NOT NULL,
    is_user INTEGER NOT NULL, message BLOB NOT NULL, turn TEXT, PRIMARY KEY (session_id, position)
);
CREATE TABLE IF NOT EXISTS responses (
    tenant TEXT NOT NULL, id TEXT NOT NULL, previous TEXT NOT NULL, created REAL NOT NULL,
    record BLOB NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE INDEX IF NOT EXISTS responses_behind ON responses (tenant, previous);
CREATE INDEX IF NOT EXISTS responses_by_age ON responses (created);
CREATE TABLE IF NOT EXISTS open_responses (
    tenant TEXT NOT NULL, id TEXT NOT NULL, server TEXT NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE IF NOT EXISTS exact_answers (
    session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, bytes INTEGER NOT NULL,
    answer BLOB NOT NULL, PRIMARY KEY (session_id, bytes)
);
CREATE TABLE IF NOT EXISTS turns (
    session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, turn TEXT NOT NULL, number INTEGER,
    PRIMARY KEY (session_id, turn)
);
CREATE TABLE IF NOT EXISTS shared_sessions (
    session_id TEXT PRIMARY KEY REFERENCES sessions ON DELETE CASCADE, life INTEGER NOT NULL,
    record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS shared_names (
    session_id TEXT PRIMARY KEY REFERENCES sessions ON DELETE CASCADE, name TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS ended_sessions (session_id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS pending_turns ON turns (session_id) WHERE number IS NULL;
DROP INDEX IF EXISTS idle_sessions;
CREATE INDEX IF NOT EXISTS unused_sessions ON sessions (last_used) WHERE NOT pinned AND metadata IS NULL;
CREATE INDEX IF NOT EXISTS unused_conversations ON sessions (last_used)
    WHERE NOT pinned AND metadata IS NOT NULL;
CREATE INDEX IF NOT EXISTS pinned_sessions ON sessions (session_id) WHERE pinned;
"""
_LATER_COLUMNS = (("messages", "turn", "TEXT"), ("sessions", "metadata", "BLOB"))
_CHAINS_OF_SESSIONS = """
INSERT INTO chains SELECT session_id, '', last_used, chain FROM sessions
WHERE typeof(last_used) = 'real' AND typeof(chain) = 'blob' AND length(chain) > 0;
ALTER TABLE sessions DROP COLUMN chain;
"""


class Database:
    """The file contexts.sqlite3 under `directory`. Methods may be called from any thread.

    The file is opened when it is first needed, and anew after a failure or when it was replaced on disk, so a
    repaired disk needs no restart; a damaged file is moved aside and a fresh one begun. Operations raise
    ServerError when the disk or the file fails, and UnavailableError for a file that a newer version wrote.
    """

    def __init__(self, directory: Path, sealing: Sealing | None = None) -> None:
        self.path = directory / "contexts.sqlite3"
        self.sealing = sealing or Sealing()
        """What is done to what clients saved and said; names, numbers and times are kept as they are."""
        self.not_sealed: str | None = None
        """Why some of it is not encrypted yet; None where that is not so."""
        self.generation = 0
        """Larger each time that another file was found or begun in the place of the one before."""
        self.damage: str | None = None
        """Which file was moved aside last, and why; None where none was moved."""
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._is_writable = True
        self._read_problem: str | None = None
        self._write_problem: str | None = None

    def open(self) -> None:
        """Make the directory (0700) and the file (0600) where they are missing; check that they work."""
        with self.read("open the context store"):
            pass

    @contextmanager
    def read(self, action: str) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone. `action` says in errors what could not be done."""
        with self._use(action, writes=False) as connection:
            yield connection

    @contextmanager
    def write(self, action: str) -> Iterator[sqlite3.Connection]:
        """The same in a transaction, which is on disk when the block ends and undone when it raises.

        Within another of this thread it is part of that one.
        """
        with self._lock:
            if self._connection is not None and self._connection.in_transaction:
                yield self._connection
                return
            with self._use(action, writes=True) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection

    def problem(self) -> str | None:
        """Why the file cannot be used now, or None.

        Does not wait for an operation that is under way: it tells then what the last one ended with.
        """
        if self._lock.acquire(blocking=False):
            try:
                with self.read("list contexts") as connection:
                    connection.execute("SELECT id FROM contexts ORDER BY id LIMIT 1").fetchall()
            except AtlasError as error:
                return error.message
            finally:
                self._lock.release()
        return self._read_problem or self._write_problem

    def close(self) -> None:
        """Close the file; what was committed is in it already."""
        with self._lock:
            self._close()

    @contextmanager
    def _use(self, action: str, *, writes: bool) -> Iterator[sqlite3.Connection]:
        with self._lock:
            opened = False
            try:
                if writes and not self._is_writable:
                    # Opened on a read-only disk, it stays so when the disk can be written again.
                    self._close()
                connection = self._open()
                opened = True
                yield connection
            except UnavailableError as error:
                if not opened:
                    self._read_problem = error.message
                raise
            except (sqlite3.Error, OSError) as error:
                self._close()
                moved = _is_damage(error) and self._move_aside(error, self._identity)
                message = f"Failed to {action}: {error}; {self._remedy(error)}"
                if moved:
                    message = f"Failed to {action}: {self.damage}; try again"
                elif writes and opened:
                    self._write_problem = message
                else:
                    self._read_problem = message
                raise ServerError(message) from error
            self._read_problem = None
            if writes:
                self._write_problem = None

    def _remedy(self, error: BaseException) -> str:
        if _code(error) in _BUSY:
            return (
                f"another process has kept {self.path} locked for more than {_BUSY_TIMEOUT_S:.0f} s: try "
                "again; if that does not help, end what holds it (fuser names it), such as a backup"
            )
        return f"check the disk space and permissions of {self.path.parent}"

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if _identity(self.path) == self._identity:
                return self._connection
            log.warning("%s was moved or replaced; opening it anew", self.path)
            self._close()
            # The generation changes here: comparing identities later fails where the new file got the old
            # one's.
            self._identity, self.generation = None, self.generation + 1
        try:
            self._connection = self._connect()
        except sqlite3.Error as error:
            if not (_is_damage(error) and self._move_aside(error, _identity(self.path))):
                raise
            self._connection = self._connect()
        self._is_writable = os.access(self.path, os.W_OK)
        before, self._identity = self._identity, _identity(self.path)
        self.generation += before not in (None, self._identity)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = _connect(self.path)
        try:
            self._seal(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _seal(self, connection: sqlite3.Connection) -> None:
        self.not_sealed = None
        if not self.sealing.is_on:
            return
        try:
            seal_rows(connection, self.sealing, self.path)
        except (sqlite3.Error, ServerError) as error:
            if _is_damage(error):
                raise
            reason = error.message if isinstance(error, ServerError) else str(error)
            self.not_sealed = f"{self.path} holds what is not encrypted: {reason}; the next start tries again"
            log.warning("%s", self.not_sealed)

    def _move_aside(self, error: BaseException, identity: tuple[int, int] | None) -> bool:
        aside = _free_name(f"{self.path}.damaged-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        try:
            with _alone(self.path, fcntl.LOCK_EX):
                # Another server may have moved it already, and begun the file that is there now.
                if identity is None or _identity(self.path) != identity:
                    return False
                # The file is moved last. A crash may then leave the file without its log: it still is
                # damaged, and is moved later. A log that is left without its file would become the log of a
                # fresh one.
                for suffix in ("-wal", "-shm", ""):
                    with suppress(FileNotFoundError):
                        Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
        except OSError as failure:
            log.error("%s is damaged and cannot be moved aside: %s", self.path, failure)
            return False
        self._identity, self.generation = None, self.generation + 1
        self.damage = f"{self.path} was damaged ({error}): it is kept as {aside}, and a fresh one was begun"
        log.error("%s", self.damage)
        return True

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


def _code(error: BaseException) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_damage(error: BaseException) -> bool:
    return _code(error) in _DAMAGE


@contextmanager
def _alone(path: Path, how: int) -> Iterator[None]:
    """Keep servers from opening the file (LOCK_SH) while one moves it and its log aside (LOCK_EX)."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # there are file systems that cannot lock a directory
            fcntl.flock(directory, how)
        yield
    finally:
        os.close(directory)


def _free_name(name: str) -> Path:
    names = (Path(name if number == 1 else f"{name}.{number}") for number in count(1))
    return next(path for path in names if not path.exists())


def _connect(path: Path) -> sqlite3.Connection:
    private_files.make_directory(path.parent)
    with _alone(path, fcntl.LOCK_SH):
        # SQLite gives its -wal and -shm files the mode of the file itself.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        # A damaged text shall cost one row, and not the query.
        connection.text_factory = lambda text: text.decode(errors="replace")
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


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
    connection.execute("PRAGMA foreign_keys = ON")
    if version < SCHEMA_VERSION:
        _upgrade(connection)


def _upgrade(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        # Another server may have been faster.
        [(version,)] = connection.execute("PRAGMA user_version").fetchall()
        if version >= SCHEMA_VERSION:
            return
        for table, column, kind in _LATER_COLUMNS:
            columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
            if columns and column not in columns:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
        script = _SCHEMA + (_CHAINS_OF_SESSIONS if version in (2, 3) else "")
        for statement in script.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
