"""How much each subject has used today, in a file that outlives the server."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path

from atlas_plugin.storage import private_sqlite

_SCHEMA = """
CREATE TABLE IF NOT EXISTS used (
    day TEXT NOT NULL, subject TEXT NOT NULL, requests INTEGER NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (day, subject)
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO used VALUES (?, ?, ?, ?) ON CONFLICT (day, subject)
DO UPDATE SET requests = requests + excluded.requests, tokens = tokens + excluded.tokens
RETURNING requests, tokens
"""
_KEPT_DAYS = 35


@dataclass(frozen=True)
class Used:
    """What a subject has used today."""

    requests: int = 0
    tokens: int = 0


class Quotas:
    """Counts by days of UTC. Any thread.

    Several servers may share the file; each knows of the others' counts when it has counted itself. Raises
    OSError and sqlite3.Error.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._day = ""
        self._used: dict[str, Used] = {}
        self._connection = private_sqlite.connect(path, _SCHEMA, 1)
        oldest = (self._today() - timedelta(days=_KEPT_DAYS)).date().isoformat()
        self._connection.execute("DELETE FROM used WHERE day < ?", (oldest,))
        self._day = self._today().date().isoformat()
        rows = self._connection.execute(
            "SELECT subject, requests, tokens FROM used WHERE day = ?", (self._day,)
        )
        self._used = {subject: Used(requests, tokens) for subject, requests, tokens in rows}

    def used(self, subject: str) -> Used:
        """What it has used today; does not wait for the disk."""
        day = self._today().date().isoformat()
        with self._lock:
            return self._used.get(subject, Used()) if day == self._day else Used()

    def starts_anew(self) -> str:
        """When the day ends, as text for people and programs."""
        return self._midnight(self._today()).strftime("%Y-%m-%dT%H:%M:%SZ")

    def seconds_left(self) -> int:
        """Until then, 1 at least."""
        now = self._today()
        return max(1, ceil((self._midnight(now) - now).total_seconds()))

    @staticmethod
    def _midnight(day: datetime) -> datetime:
        return day.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)

    def add(self, subject: str, requests: int, tokens: int) -> None:
        """Count what was used just now. Raises sqlite3.Error where it can only be counted until a restart."""
        with self._writing:
            day = self._today().date().isoformat()
            before = self.used(subject)
            sums = Used(before.requests + requests, before.tokens + tokens)
            try:
                rows = self._connection.execute(_ADD, (day, subject, requests, tokens)).fetchall()
                sums = Used(*rows[0])
            finally:
                with self._lock:
                    if day != self._day:
                        self._day, self._used = day, {}
                    self._used[subject] = sums

    def close(self) -> None:
        """Close the file; all that was counted is in it."""
        with self._writing:
            self._connection.close()

    def _today(self) -> datetime:
        return datetime.fromtimestamp(self._now(), UTC)
