"""What a session that a client made as a conversation has beside its record; and single rows of records."""

import time
from typing import NamedTuple

from atlas_plugin.storage.conversations import MAKE_SESSION, forget_exact
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.sealed_rows import name_of


class Found(NamedTuple):
    """A session that there is."""

    created_at: float
    """Seconds since 1970."""
    metadata: bytes | None
    """JSON; None where no client made it as a conversation."""


class Row(NamedTuple):
    """What was said at a place of a record; of two places the later one is greater."""

    position: int
    data: bytes
    """JSON."""


class ConversationRows:
    """Over a database, whose rules for threads and errors hold here too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, session_id: str) -> Found | None:
        """What there is of that name."""
        with self._database.read("load a conversation") as connection:
            query = (
                "SELECT CAST(created_at AS REAL), CAST(metadata AS BLOB) FROM sessions WHERE session_id = ?"
            )
            row = connection.execute(query, (session_id,)).fetchone()
        if row is None:
            return None
        created_at, metadata = row
        if metadata is not None:
            metadata = self._database.sealing.open(name_of("sessions", session_id), metadata)
        return Found(created_at, metadata)

    def put(self, session_id: str, metadata: bytes) -> None:
        """Make the session a conversation with these metadata, and the session where there is none."""
        kept = self._database.sealing.close(name_of("sessions", session_id), metadata)
        with self._database.write("keep a conversation") as connection:
            connection.execute(MAKE_SESSION, (session_id, time.time()))
            query = "UPDATE sessions SET metadata = ? WHERE session_id = ?"
            connection.execute(query, (kept, session_id))

    def rows(self, session_id: str) -> list[Row]:
        """The record, oldest first."""
        with self._database.read("load a conversation") as connection:
            found = connection.execute(
                "SELECT position, CAST(message AS BLOB) FROM messages WHERE session_id = ? ORDER BY position",
                (session_id,),
            ).fetchall()
        sealing = self._database.sealing
        return [Row(at, sealing.open(name_of("messages", session_id, at), kept)) for at, kept in found]

    def replace(self, session_id: str, position: int, data: bytes | None) -> None:
        """Have something else stand at that place, or None: nothing."""
        with self._database.write("delete an item") as connection:
            forget_exact(connection, session_id)
            if data is None:
                connection.execute(
                    "DELETE FROM messages WHERE session_id = ? AND position = ?", (session_id, position)
                )
            else:
                kept = self._database.sealing.close(name_of("messages", session_id, position), data)
                connection.execute(
                    "UPDATE messages SET message = ? WHERE session_id = ? AND position = ?",
                    (kept, session_id, position),
                )
