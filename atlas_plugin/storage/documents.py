"""JSON documents that clients save, "contexts" on the wire: durable once `save` returns."""

import time
from dataclasses import dataclass

from atlas_plugin.storage.database import Database
from atlas_plugin.storage.sealed_rows import name_of


@dataclass(frozen=True)
class ContextInfo:
    """A saved context: its size in bytes as serialised, and times in seconds since 1970."""

    context_id: str
    bytes: int
    created: float
    updated: float


class DocumentStore:
    """The saved documents in a database, whose rules for threads and errors hold here too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, context_id: str, state: bytes) -> ContextInfo:
        """Insert or replace a document; on return it is on disk. `created` stays that of the first save."""
        now = time.time()
        kept = self._database.sealing.close(name_of("contexts", context_id), state)
        with self._database.write("save context state") as connection:
            [(created,)] = connection.execute(
                "INSERT INTO contexts (id, created, updated, state) VALUES (?1, ?2, ?2, ?3) ON CONFLICT (id) "
                "DO UPDATE SET updated = excluded.updated, state = excluded.state RETURNING created",
                (context_id, now, kept),
            ).fetchall()
        return ContextInfo(context_id, len(state), created, now)

    def load(self, context_id: str) -> tuple[ContextInfo, bytes] | None:
        """The document's record and its state as saved, or None where there is none."""
        with self._database.read("load context state") as connection:
            row = connection.execute(
                "SELECT created, updated, state FROM contexts WHERE id = ?", (context_id,)
            ).fetchone()
        if row is None:
            return None
        created, updated, kept = row
        state = self._database.sealing.open(name_of("contexts", context_id), kept)
        return ContextInfo(context_id, len(state), created, updated), state

    def delete(self, context_id: str) -> int | None:
        """Remove a document; the bytes of its state, or None where there is none."""
        with self._database.write("delete context state") as connection:
            rows = connection.execute(
                "DELETE FROM contexts WHERE id = ? RETURNING length(state)", (context_id,)
            ).fetchall()
        return max(0, int(rows[0][0]) - self._database.sealing.extra) if rows else None
