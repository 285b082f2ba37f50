"""Events that are to be delivered, in a file that outlives the server."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atlas_plugin.storage import private_sqlite

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, created REAL NOT NULL, due REAL NOT NULL,
    refusals INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_created ON events (created);
CREATE INDEX IF NOT EXISTS events_due ON events (due, number)
"""
_OLDEST = "DELETE FROM events WHERE number IN (SELECT number FROM events ORDER BY number LIMIT ?)"


@dataclass(frozen=True)
class Event:
    """What is to be delivered; `refusals` counts how often it was refused for itself."""

    number: int
    id: str
    refusals: int
    body: bytes


class Queue:
    """At most `max_queued` events, the oldest of which make room. Any thread.

    Raises OSError and sqlite3.Error.
    """

    def __init__(self, path: Path, max_queued: int, now: Callable[[], float] = time.time) -> None:
        self._max_queued = max_queued
        self._now = now
        self._lock = threading.Lock()
        self._connection = private_sqlite.connect(path, _SCHEMA, 1)
        [(self.length,)] = self._connection.execute("SELECT COUNT(*) FROM events").fetchall()

    def put(self, event_id: str, body: bytes) -> int:
        """Add an event, which is in the file then; how many had to make room."""
        now = self._now()
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO events (id, created, due, refusals, body) VALUES (?, ?, ?, 0, ?)",
                (event_id, now, now, body),
            )
            dropped: int = max(0, self.length + 1 - self._max_queued)
            if dropped:
                connection.execute(_OLDEST, (dropped,))
            self.length += 1 - dropped
        return dropped

    def first(self) -> Event | None:
        """The one that was due first; None: none is due now."""
        with self._lock:
            row = self._connection.execute(
                "SELECT number, id, refusals, body FROM events WHERE due <= ? ORDER BY due, number LIMIT 1",
                (self._now(),),
            ).fetchone()
        return None if row is None else Event(*row)

    def next_due_s(self) -> float | None:
        """In how many seconds one is due; None: there is none."""
        with self._lock:
            [(due,)] = self._connection.execute("SELECT MIN(due) FROM events").fetchall()
        return None if due is None else max(0.0, due - self._now())

    def postpone(self, event: Event, seconds: float) -> None:
        """Have it wait, while others go before it."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE events SET due = ?, refusals = refusals + 1 WHERE number = ?",
                (self._now() + seconds, event.number),
            )

    def remove(self, event: Event) -> None:
        """It was delivered."""
        with self._transaction() as connection:
            self.length -= connection.execute("DELETE FROM events WHERE number = ?", (event.number,)).rowcount

    def expire(self, age_s: float) -> int:
        """Drop those that are older; how many."""
        with self._transaction() as connection:
            dropped = connection.execute(
                "DELETE FROM events WHERE created < ?", (self._now() - age_s,)
            ).rowcount
            self.length -= dropped
        return dropped

    def close(self) -> None:
        """Close the file; all that is to be delivered is in it."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            length = self.length
            try:
                with self._connection as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    yield connection
            except BaseException:
                self.length = length
                raise
