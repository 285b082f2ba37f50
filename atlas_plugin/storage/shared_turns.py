"""The rows of what servers share of sessions: which turns others have, and what they are still to be told."""

import time
from collections.abc import Iterable, Mapping, Sequence
from sqlite3 import Connection
from typing import NamedTuple
from uuid import uuid4

from atlas_plugin import json_text
from atlas_plugin.responses.forms import role_of
from atlas_plugin.storage.conversations import MAKE_SESSION, Packed, read_rows, too_old, write_rows
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.sealed_rows import name_of
from atlas_plugin.storage.turn_order import Turn, in_order


class SharedState(NamedTuple):
    """What is known of a session's record that servers share."""

    life: int
    """How many records of that name there were before; -1 where none is known."""
    record: str
    """Its id; empty where none is known."""
    next: int
    """The number of its next turn."""
    last: str
    """The id of the turn before that; empty where there is none."""


class KnownSession(NamedTuple):
    """What another server says of a session; times are in seconds since 1970."""

    session_id: str
    name: str
    """As the store has it."""
    tokens: int
    created: float
    last_used: float
    pinned: bool
    metadata: bytes | None = None
    """JSON, where a client made it as a conversation."""


_PENDING = "AND turn IN (SELECT turn FROM turns WHERE session_id = ?1 AND number IS NULL)"
_NEXT = (
    "SELECT turn, number FROM turns WHERE session_id = ? AND number IS NOT NULL ORDER BY number DESC LIMIT 1"
)
_PUT_TURN = """
INSERT INTO turns (session_id, turn, number) VALUES (?, ?, ?)
ON CONFLICT (session_id, turn) DO UPDATE SET number = coalesce(excluded.number, number)
"""
_PUT_STATE = """
INSERT INTO shared_sessions (session_id, life, record) VALUES (?, ?, ?)
ON CONFLICT (session_id) DO UPDATE SET life = excluded.life, record = excluded.record
"""
# Of turns whose messages are gone as too old, only the last is needed.
_FORGET_OLD_TURNS = """
DELETE FROM turns WHERE session_id = ?1
AND turn NOT IN (SELECT turn FROM messages WHERE session_id = ?1 AND turn IS NOT NULL)
AND number IS NOT (SELECT max(number) FROM turns WHERE session_id = ?1)
"""
_LEARN = """
INSERT INTO sessions (session_id, tokens, last_used, pinned, created_at, metadata)
VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (session_id) DO UPDATE SET
    metadata = iif(excluded.last_used >= last_used, coalesce(excluded.metadata, metadata),
        coalesce(metadata, excluded.metadata)),
    tokens = iif(excluded.last_used > last_used, excluded.tokens, tokens),
    pinned = iif(excluded.last_used > last_used, excluded.pinned, pinned),
    created_at = min(created_at, excluded.created_at), last_used = max(last_used, excluded.last_used)
"""


class SharedTurns:
    """Over a database, whose rules for threads and errors hold here too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self, session_id: str) -> SharedState:
        """Of one session."""
        with self._database.read("load a conversation") as connection:
            row = connection.execute(
                "SELECT life, record FROM shared_sessions WHERE session_id = ?", (session_id,)
            ).fetchone()
            last = connection.execute(_NEXT, (session_id,)).fetchone()
        life, record = row or (-1, "")
        return SharedState(life, record, last[1] + 1 if last else 0, last[0] if last else "")

    def begin(self, session_id: str, life: int, record: str) -> None:
        """A record was made for it: what was recorded here belongs to that, and others have none of it."""
        with self._database.write("record a conversation") as connection:
            connection.execute(MAKE_SESSION, (session_id, time.time()))
            connection.execute("UPDATE turns SET number = NULL WHERE session_id = ?", (session_id,))
            connection.execute(_PUT_STATE, (session_id, life, record))

    def begin_again(self, session_id: str, life: int) -> None:
        """The same record has another number, as the store had lost it."""
        with self._database.write("record a conversation") as connection:
            connection.execute("UPDATE shared_sessions SET life = ? WHERE session_id = ?", (life, session_id))

    def lose(self, session_id: str) -> None:
        """Others have nothing of what was recorded here."""
        with self._database.write("record a conversation") as connection:
            connection.execute("UPDATE turns SET number = NULL WHERE session_id = ?", (session_id,))
            connection.execute("DELETE FROM shared_sessions WHERE session_id = ?", (session_id,))

    def adopt(self, session_id: str) -> None:
        """Make one turn of what was recorded without one, which others are to be told."""
        with self._database.write("record a conversation") as connection:
            where = "WHERE session_id = ? AND turn IS NULL"
            if connection.execute(f"SELECT 1 FROM messages {where} LIMIT 1", (session_id,)).fetchone():
                turn = uuid4().hex
                last = connection.execute(_NEXT, (session_id,)).fetchone()
                # Where the client changed what was shared, the record is what it sent.
                if (
                    last
                    and not connection.execute(
                        "SELECT 1 FROM messages WHERE session_id = ? AND turn = ? LIMIT 1",
                        (session_id, last[0]),
                    ).fetchone()
                ):
                    turn = f"{_REPLACES}{turn}"
                    where = "WHERE session_id = ?"
                connection.execute(f"UPDATE messages SET turn = '{turn}' {where}", (session_id,))
                connection.execute(_PUT_TURN, (session_id, turn, None))

    def begin_anew(self, session_id: str, record: str) -> None:
        """The record of that id ends, which the store is to be told; what is here begins another."""
        with self._database.write("record a conversation") as connection:
            self.note_end(session_id, record)
            for table in ("turns", "shared_sessions", "shared_names"):
                connection.execute(f"DELETE FROM {table} WHERE session_id = ?", (session_id,))
            turn = uuid4().hex
            query = "UPDATE messages SET turn = ? WHERE session_id = ?"
            if connection.execute(query, (turn, session_id)).rowcount:
                connection.execute(_PUT_TURN, (session_id, turn, None))

    def is_adopted(self, session_id: str) -> bool:
        """Whether all that was recorded belongs to turns."""
        with self._database.read("load a conversation") as connection:
            query = "SELECT 1 FROM messages WHERE session_id = ? AND turn IS NULL LIMIT 1"
            return connection.execute(query, (session_id,)).fetchone() is None

    def pending(self, session_id: str) -> list[Turn]:
        """The turns that others do not have, in their order."""
        with self._database.read("load a conversation") as connection:
            rows = read_rows(connection, session_id, self._database.sealing, _PENDING)
        return _turns_of(rows)

    def n_pending(self) -> int:
        """Of all sessions."""
        with self._database.read("count turns") as connection:
            (count,) = connection.execute("SELECT count(*) FROM turns WHERE number IS NULL").fetchone()
            return int(count)

    def sessions_with_pending(self, limit: int) -> list[str]:
        """The sessions that have such turns, at most so many."""
        with self._database.read("load a conversation") as connection:
            query = "SELECT DISTINCT session_id FROM turns WHERE number IS NULL LIMIT ?"
            return [name for (name,) in connection.execute(query, (limit,))]

    def confirm(self, session_id: str, turn: str, number: int) -> None:
        """Others have it, by that number."""
        with self._database.write("record a conversation") as connection:
            connection.execute(_PUT_TURN, (session_id, turn, number))

    def drop_empty(self, session_id: str) -> None:
        """Forget turns that nobody has been told and whose messages are gone, as too old."""
        with self._database.write("record a conversation") as connection:
            connection.execute(
                "DELETE FROM turns WHERE session_id = ?1 AND number IS NULL AND turn NOT IN "
                "(SELECT turn FROM messages WHERE session_id = ?1 AND turn IS NOT NULL)",
                (session_id,),
            )

    def take(self, session_id: str, new: Mapping[int, Turn], limit: int) -> None:
        """Put turns of others, by number, behind those that are shared and before those that are not."""
        sealing = self._database.sealing
        with self._database.write("record a conversation") as connection:
            connection.execute(MAKE_SESSION, (session_id, time.time()))
            waiting = _waiting(connection, session_id)
            own = _turns_of(read_rows(connection, session_id, sealing))
            ids = {turn.id for turn in new.values()}
            shared = [turn for turn in own if turn.id and turn.id not in waiting and turn.id not in ids]
            rest = [turn for turn in own if (not turn.id or turn.id in waiting) and turn.id not in ids]
            self._write(connection, session_id, [*shared, *new.values(), *rest], limit)
            connection.executemany(_PUT_TURN, [(session_id, one.id, number) for number, one in new.items()])
            connection.execute(_FORGET_OLD_TURNS, (session_id,))

    def take_all(self, session_id: str, life: int, record: str, log: Mapping[int, Turn], limit: int) -> None:
        """The same of a whole record, by which what is known of the shared one is replaced.

        What is here and not there comes behind it, as far as it is no older than what both have.
        """
        sealing = self._database.sealing
        with self._database.write("record a conversation") as connection:
            connection.execute(MAKE_SESSION, (session_id, time.time()))
            own = _turns_of(read_rows(connection, session_id, sealing))
            ids = {turn.id for turn in log.values()}
            common = max((at for at, turn in enumerate(own) if turn.id in ids), default=-1)
            rest = _not_in([turn for turn in own[common + 1 :] if turn.id not in ids], list(log.values()))
            connection.execute("DELETE FROM turns WHERE session_id = ?", (session_id,))
            connection.executemany(_PUT_TURN, [(session_id, one.id, number) for number, one in log.items()])
            connection.executemany(_PUT_TURN, [(session_id, one.id, None) for one in rest])
            connection.execute(_PUT_STATE, (session_id, life, record))
            self._write(connection, session_id, [*log.values(), *rest], limit)
            connection.execute(_FORGET_OLD_TURNS, (session_id,))

    def _write(self, connection: Connection, session_id: str, turns: Sequence[Turn], limit: int) -> None:
        rows = [
            Packed(role_of(json_text.decode(message)) == "user", message, turn.id or None)
            for turn in in_order(turns)
            for message in turn.messages
        ]
        del rows[too_old([(one.is_user, len(one.data)) for one in rows], limit)]
        write_rows(connection, session_id, rows, self._database.sealing)

    # Deletions that the store is to be told.

    def note_end(self, session_id: str, record: str) -> None:
        """The session is being deleted: remembered until the store knows."""
        with self._database.write("delete sessions") as connection:
            connection.execute(
                "INSERT INTO ended_sessions VALUES (?, ?) ON CONFLICT (session_id) DO UPDATE SET "
                "record = excluded.record",
                (session_id, record),
            )

    def ends(self, limit: int) -> list[tuple[str, str]]:
        """Sessions that were deleted here, and their records' ids; at most so many."""
        with self._database.read("delete sessions") as connection:
            return connection.execute(
                "SELECT session_id, record FROM ended_sessions LIMIT ?", (limit,)
            ).fetchall()

    def end_of(self, session_id: str) -> str | None:
        """The record's id where a session was deleted here and the store does not know; else None."""
        with self._database.read("delete sessions") as connection:
            query = "SELECT record FROM ended_sessions WHERE session_id = ?"
            row = connection.execute(query, (session_id,)).fetchone()
            return None if row is None else str(row[0])

    def forget_end(self, session_id: str) -> None:
        """The store knows."""
        with self._database.write("delete sessions") as connection:
            connection.execute("DELETE FROM ended_sessions WHERE session_id = ?", (session_id,))

    # Names.

    def not_announced(self, limit: int) -> list[str]:
        """Sessions of which others do not know that there are, at most so many.

        Not those that ended before, as long as others do not know of that.
        """
        with self._database.read("list contexts") as connection:
            query = (
                "SELECT session_id FROM sessions WHERE NOT EXISTS (SELECT 1 FROM shared_names "
                "WHERE shared_names.session_id = sessions.session_id) AND NOT EXISTS (SELECT 1 "
                "FROM ended_sessions WHERE ended_sessions.session_id = sessions.session_id) LIMIT ?"
            )
            return [name for (name,) in connection.execute(query, (limit,))]

    def announced(self, names: Mapping[str, str]) -> None:
        """Others know of these sessions now; by id, the names that the store has for them."""
        with self._database.write("save sessions") as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO shared_names "
                "SELECT session_id, ?2 FROM sessions WHERE session_id = ?1",
                list(names.items()),
            )

    def names(self) -> dict[str, str]:
        """The sessions that others know of: ids by the store's names."""
        with self._database.read("list contexts") as connection:
            rows = connection.execute("SELECT name, session_id FROM shared_names").fetchall()
            return {str(name): str(session_id) for name, session_id in rows}

    def forget_names(self, session_ids: Iterable[str]) -> None:
        """Others do not know of these."""
        with self._database.write("save sessions") as connection:
            connection.executemany(
                "DELETE FROM shared_names WHERE session_id = ?", [(name,) for name in session_ids]
            )

    def learn(self, sessions: Sequence[KnownSession]) -> None:
        """Others say so of these sessions, which are made where they are missing."""
        with self._database.write("save sessions") as connection:
            for one in sessions:
                metadata = one.metadata
                if metadata is not None:
                    metadata = self._database.sealing.close(name_of("sessions", one.session_id), metadata)
                row = (one.session_id, one.tokens, one.last_used, one.pinned, one.created, metadata)
                connection.execute(_LEARN, row)
                connection.execute(
                    "INSERT OR REPLACE INTO shared_names VALUES (?, ?)", (one.session_id, one.name)
                )


_REPLACES = "r-"
"""Begins the id of a turn in whose place no earlier one stays."""


def _waiting(connection: Connection, session_id: str) -> set[str]:
    query = "SELECT turn FROM turns WHERE session_id = ? AND number IS NULL"
    return {turn for (turn,) in connection.execute(query, (session_id,))}


def _turns_of(rows: Iterable[Packed]) -> list[Turn]:
    turns: list[Turn] = []
    for row in rows:
        turn = row.turn or ""
        if turns and turns[-1].id == turn:
            turns[-1] = Turn(turn, [*turns[-1].messages, row.data], turns[-1].replaces)
        else:
            turns.append(Turn(turn, [row.data], turn.startswith(_REPLACES)))
    return turns


def _not_in(rest: list[Turn], log: Sequence[Turn]) -> list[Turn]:
    """What was recorded before anything was shared gets an id, unless the shared record has it anyway."""
    kept = []
    for turn in rest:
        if turn.id:
            kept.append(turn)
            continue
        known = [message for one in log for message in one.messages]
        new = list(turn.messages)
        n_same = min(len(known), len(new))
        if known[:n_same] == new[:n_same]:
            new = new[n_same:]
        if new:
            kept.append(Turn(uuid4().hex, new))
    return kept
