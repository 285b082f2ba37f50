"""A tier of the memory in a SQLite file, which servers of one machine share: docs/cookbook/shelf.md."""

import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from atlas_plugin import Tier, TierStats, facts, hookimpl
from atlas_plugin.storage import private_sqlite

_SCHEMA = """
CREATE TABLE IF NOT EXISTS shelf (key TEXT PRIMARY KEY, used REAL, ends REAL, size INTEGER, value BLOB);
CREATE INDEX IF NOT EXISTS by_use ON shelf (used, size, key);
CREATE INDEX IF NOT EXISTS by_end ON shelf (ends)"""
_VERSION = 1


class Config(Struct, forbid_unknown_fields=True, frozen=True):
    """The table [plugins.shelf]."""

    path: Annotated[str, Meta(min_length=1)]
    """The file; it is made where it is missing."""
    layer: Annotated[int, Meta(ge=facts.FIRST_PLUGIN_LAYER, le=facts.MAX_LAYER)] = facts.FIRST_PLUGIN_LAYER
    max_bytes: Annotated[int, Meta(ge=1)] = 16 << 30
    """Of values; those used longest ago go first."""
    deadline_ms: Annotated[int, Meta(ge=1, le=facts.MAX_DEADLINE_MS)] = 2000


class Shelf(Tier):
    """A connection for each thread of the server's, so that readers do not wait for each other."""

    name = "shelf"

    def __init__(self, config: Config) -> None:
        self.layer, self.deadline_ms, self._max_bytes = config.layer, config.deadline_ms, config.max_bytes
        self._path, self._own = Path(config.path), threading.local()

    @property
    def _file(self) -> sqlite3.Connection:
        if not hasattr(self._own, "file"):
            self._own.file = private_sqlite.connect(self._path, _SCHEMA, _VERSION)
        file: sqlite3.Connection = self._own.file
        return file

    def probe(self, keys: Sequence[str]) -> Sequence[bool]:
        """Whether each is there."""
        marks = ", ".join("?" * len(keys))
        rows = self._file.execute(
            f"SELECT key FROM shelf WHERE ends > ? AND key IN ({marks})", (time.time(), *keys)
        )
        found = {key for (key,) in rows}
        return [key in found for key in keys]

    def get(self, keys: Sequence[str]) -> Iterable[bytes | None]:
        """The values, up to the first that is missing."""
        for key in keys:
            row = self._file.execute("SELECT value FROM shelf WHERE key = ?", (key,)).fetchone()
            yield row[0] if row else None

    def put(self, key: str, value: bytearray, ttl_s: int) -> None:
        """Keep it, and give up what is too old or too much."""
        now = time.time()
        with self._file as file:
            file.execute("BEGIN IMMEDIATE")
            file.execute("DELETE FROM shelf WHERE ends <= ?", (now,))
            given = key, now, now + ttl_s, len(value), value
            file.execute("INSERT OR REPLACE INTO shelf VALUES (?, ?, ?, ?, ?)", given)
            (total,) = file.execute("SELECT sum(size) FROM shelf").fetchone()
            while total > self._max_bytes:
                row = file.execute("SELECT key, size FROM shelf ORDER BY used LIMIT 1").fetchone()
                file.execute("DELETE FROM shelf WHERE key = ?", (row[0],))
                total -= row[1]

    def keep(self, keys: Sequence[str], ttl_s: int) -> Sequence[bool]:
        """Count them as used, in their order."""
        now = time.time()
        rows = [(now + number / 1e6, now + ttl_s, key) for number, key in enumerate(keys)]
        self._file.executemany("UPDATE shelf SET used = ?, ends = ? WHERE key = ?", rows)
        return self.probe(keys)

    def remove(self, keys: Sequence[str]) -> None:
        """Remove them."""
        self._file.executemany("DELETE FROM shelf WHERE key = ?", [(key,) for key in keys])

    def stats(self) -> TierStats:
        """What is in the file."""
        entries, size = self._file.execute("SELECT count(*), coalesce(sum(size), 0) FROM shelf").fetchone()
        return TierStats(entries, size)


class Plugin:
    """Brings the tier. A file that cannot be used makes the plugin fail."""

    @hookimpl
    def configure(self, config: Config) -> None:
        """Keep the configuration."""
        self._config = config

    @hookimpl
    def register_tiers(self) -> Sequence[Tier]:
        """Bring it."""
        shelf = Shelf(self._config)
        shelf.stats()
        return [shelf]
