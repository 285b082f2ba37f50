"""The rows of what sessions said: JSON messages in their order, as many of the latest as a limit holds."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from sqlite3 import Connection
from typing import Any, NamedTuple

from atlas_plugin import json_text
from atlas_plugin.errors import PayloadTooLarge, ServerError, ValidationError
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.sealed_rows import name_of
from atlas_plugin.storage.sealing import Sealing

Message = Mapping[str, Any]

_INSERT = "INSERT INTO messages (session_id, position, is_user, message, turn) VALUES (?, ?, ?, ?, ?)"
_EXACT = "SELECT bytes, CAST(answer AS BLOB) FROM exact_answers WHERE session_id = ? ORDER BY bytes"
_POSITIONS = "SELECT position FROM messages WHERE session_id = ? ORDER BY position"
# A session that is new has no KV state yet: 0 tokens. One that is there keeps its number.
MAKE_SESSION = """
INSERT INTO sessions (session_id, tokens, last_used, pinned, created_at) VALUES (?1, 0, ?2, 0, ?2)
ON CONFLICT (session_id) DO UPDATE SET last_used = max(last_used, excluded.last_used)
"""


class Packed(NamedTuple):
    """A row of a record."""

    is_user: bool
    data: bytes
    """The message as JSON."""
    turn: str | None = None
    """The id of the turn that it is of; None where nothing is shared."""


class ConversationStore:
    """The records in a database, whose rules for threads and errors hold here too.

    A record begins with the messages before the first user message, as a system prompt; then come exchanges,
    each a user message and what follows it. Where a record would be larger than a limit, the oldest exchanges
    are removed as a whole.
    Messages that are no JSON objects, or nested too deeply, raise ValidationError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, session_id: str) -> list[bytes]:
        """The messages of a session, oldest first; none where there is no such session."""
        with self._database.read("load a conversation") as connection:
            return [one.data for one in read_rows(connection, session_id, self._database.sealing)]

    def size(self, session_id: str) -> int:
        """The bytes that `load` would give."""
        with self._database.read("load a conversation") as connection:
            query = "SELECT total(length(message)), count(*) FROM messages WHERE session_id = ?"
            size, n = connection.execute(query, (session_id,)).fetchone()
            return int(size) - int(n) * self._database.sealing.extra

    def exact_answers(self, session_id: str) -> list[dict[str, Any]]:
        """How the model wrote the answers, as far as that is known, the first of them first.

        Each is as atlas-abi.h has it. One that is damaged is left out: its text is in the record.
        """
        with self._database.read("load a conversation") as connection:
            rows = connection.execute(_EXACT, (session_id,)).fetchall()
        found = []
        for size, answer in rows:
            with suppress(ServerError):
                name = name_of("exact_answers", session_id, size)
                found.append(decoded(self._database.sealing.open(name, answer)))
        return found

    def append(
        self,
        session_id: str,
        messages: Sequence[Message],
        limit: int,
        turn: str | None = None,
        exact: Mapping[str, Any] | None = None,
    ) -> None:
        """Add messages at the end of the record, and remove old exchanges so that `limit` bytes hold it.

        Makes the session where there is none. `turn` is the id of a turn that other servers are to be told;
        `exact` says how the model wrote the answer.
        Raises PayloadTooLarge, and changes nothing, when the exchange that they belong to is larger than the
        limit.
        """
        new = [one._replace(turn=turn) for one in _pack(messages)]
        with self._database.write("record a conversation") as connection:
            query = "SELECT position, is_user, length(message) FROM messages WHERE session_id = ? ORDER BY 1"
            stored = connection.execute(query, (session_id,)).fetchall()
            sealing = self._database.sealing
            rows = [(bool(is_user), size - sealing.extra) for _, is_user, size in stored]
            gone = too_old([*rows, *((one.is_user, len(one.data)) for one in new)], limit)
            if gone.stop == len(stored) + len(new) and new:
                raise PayloadTooLarge(
                    f"the exchange has {sum(len(one.data) for one in new)} bytes and does not fit into a "
                    f"session's record of {limit} bytes"
                )
            connection.execute(MAKE_SESSION, (session_id, time.time()))
            connection.executemany(
                "DELETE FROM messages WHERE session_id = ? AND position = ?",
                [(session_id, position) for position, _, _ in stored[gone]],
            )
            if stored[gone]:
                forget_exact(connection, session_id)
            kept = [one for i, one in enumerate(new, len(stored)) if not gone.start <= i < gone.stop]
            _insert(connection, session_id, stored[-1][0] + 1 if stored else 0, kept, sealing)
            if turn is not None:
                connection.execute("INSERT INTO turns VALUES (?, ?, NULL)", (session_id, turn))
            if exact is not None:
                _put_exact(connection, session_id, exact, sealing)

    def replace(self, records: Mapping[str, Sequence[Message]], limit: int) -> dict[str, ValidationError]:
        """Make these the records of their sessions: the latest messages of each, within `limit` bytes.

        All are written in one transaction; sessions that are missing are made. A record that cannot be
        written stays as it was, and the answer has the reason. That of a conversation stays, too: its items
        were put there one by one.
        """
        packed: dict[str, list[Packed]] = {}
        problems: dict[str, ValidationError] = {}
        for session_id, messages in records.items():
            try:
                rows = _pack(messages)
            except ValidationError as error:
                problems[session_id] = error
                continue
            del rows[too_old([(one.is_user, len(one.data)) for one in rows], limit)]
            packed[session_id] = rows
        if packed:
            with self._database.write("record conversations") as connection:
                for session_id, rows in packed.items():
                    _replace(connection, session_id, rows, self._database.sealing)
        return problems


def decoded(data: bytes) -> dict[str, Any]:
    """What a row says. Raises ServerError where it is damaged."""
    try:
        said = json_text.decode(data)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise ServerError("what is kept of the session is damaged: delete the session")
    return said


def _replace(connection: Connection, session_id: str, rows: Sequence[Packed], sealing: Sealing) -> None:
    query = "SELECT 1 FROM sessions WHERE session_id = ? AND metadata IS NOT NULL"
    if connection.execute(query, (session_id,)).fetchone():
        return
    connection.execute(MAKE_SESSION, (session_id, time.time()))
    try:
        stored = read_rows(connection, session_id, sealing)
    except ServerError:  # what cannot be read is written anew
        stored = []
    # A client that sends everything says nothing of turns: what is the same stays of its turn.
    pairs = list(zip(stored, rows, strict=False))
    same = next((i for i, (old, new) in enumerate(pairs) if old.data != new.data), len(pairs))
    write_rows(connection, session_id, [*stored[:same], *rows[same:]], sealing)


def write_rows(connection: Connection, session_id: str, rows: Sequence[Packed], sealing: Sealing) -> None:
    """Make these the record of a session that there is."""
    try:
        stored = read_rows(connection, session_id, sealing)
    except ServerError:
        stored = []
    # Most conversations only grow: messages that are stored need not be written again.
    pairs = zip(stored, rows, strict=False)
    same = next((i for i, (old, new) in enumerate(pairs) if old != new), None)
    kept = min(len(stored), len(rows)) if same is None else same
    positions = connection.execute(_POSITIONS, (session_id,)).fetchall()
    if kept < len(positions):
        forget_exact(connection, session_id)
    connection.executemany(
        "DELETE FROM messages WHERE session_id = ? AND position = ?",
        [(session_id, position) for (position,) in positions[kept:]],
    )
    _insert(connection, session_id, positions[kept - 1][0] + 1 if kept else 0, rows[kept:], sealing)


def forget_exact(connection: Connection, session_id: str) -> None:
    """What was said is no more, or other than it was: so is how the model wrote it."""
    connection.execute("DELETE FROM exact_answers WHERE session_id = ?", (session_id,))


def _put_exact(connection: Connection, session_id: str, exact: Mapping[str, Any], sealing: Sealing) -> None:
    # The record goes on from this prompt: those behind it were of one that is no more.
    size = exact["bytes"]
    connection.execute("DELETE FROM exact_answers WHERE session_id = ? AND bytes >= ?", (session_id, size))
    answer = sealing.close(name_of("exact_answers", session_id, size), json_text.encode(exact))
    connection.execute("INSERT INTO exact_answers VALUES (?, ?, ?)", (session_id, size, answer))


def _pack(messages: Sequence[Message]) -> list[Packed]:
    try:
        return [Packed(message.get("role") == "user", json_text.encode(message)) for message in messages]
    except (AttributeError, TypeError) as error:
        raise ValidationError(f"cannot be recorded: {error}", "messages") from None


def _insert(
    connection: Connection, session_id: str, position: int, rows: Sequence[Packed], sealing: Sealing
) -> None:
    numbered = [
        (session_id, at, one.is_user, sealing.close(name_of("messages", session_id, at), one.data), one.turn)
        for at, one in enumerate(rows, position)
    ]
    connection.executemany(_INSERT, numbered)


def read_rows(connection: Connection, session_id: str, sealing: Sealing, condition: str = "") -> list[Packed]:
    """The rows of a record; `condition` is added to the query. Raises ServerError where one is damaged."""
    query = (
        "SELECT position, is_user, CAST(message AS BLOB), turn FROM messages "
        f"WHERE session_id = ?1 {condition} ORDER BY position"
    )
    return [
        Packed(bool(is_user), sealing.open(name_of("messages", session_id, position), message), turn)
        for position, is_user, message, turn in connection.execute(query, (session_id,))
    ]


def too_old(rows: Sequence[tuple[bool, int]], limit: int) -> slice:
    """Which of (is user, bytes) have to go: whole exchanges, or all where no exchange fits."""
    starts = [index for index, (is_user, _) in enumerate(rows) if is_user]
    excess = sum(size for _, size in rows) - limit
    if excess <= 0:
        return slice(0, 0)
    for start, end in pairwise(starts):
        excess -= sum(size for _, size in rows[start:end])
        if excess <= 0:
            return slice(starts[0], end)
    return slice(0, len(rows))
