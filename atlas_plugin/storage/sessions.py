"""The rows of sessions: what of them has to survive a restart."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from atlas_plugin import facts
from atlas_plugin.errors import ServerError
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.memory_records import Session
from atlas_plugin.storage.sealed_rows import name_of
from atlas_plugin.storage.sealing import Sealing

_KEY_BYTES = 32
_MAX_CHAINS = 4
"""Of one session: each model that it is used with has one, and each build of the server."""
# put_forward() may have made the row's last use later than the server's, so the later one is kept; but not
# one in the future, which comes from a wrong clock. A pin stays: a server on the same path may not know of
# it.
_UPSERT = """
INSERT INTO sessions (session_id, tokens, last_used, pinned, created_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (session_id) DO UPDATE SET
    tokens = excluded.tokens, pinned = max(pinned, excluded.pinned),
    last_used = max(excluded.last_used, iif(last_used > excluded.created_at, 0, last_used))
"""
_UPSERT_CHAIN = """
INSERT INTO chains (session_id, root, used, chain) VALUES (?, ?, ?, ?)
ON CONFLICT (session_id, root) DO UPDATE SET used = excluded.used, chain = excluded.chain
"""
_DELETE_OLD_CHAINS = f"""
DELETE FROM chains WHERE session_id = ?1 AND root NOT IN
    (SELECT root FROM chains WHERE session_id = ?1 AND root != '' ORDER BY used DESC LIMIT {_MAX_CHAINS})
"""


# SQLite has no checksums: a damaged row may hold anything. GLOB and the length of a text end at a NUL,
# and the length of a blob does not.
_SOUND = """
typeof(session_id) = 'text' AND session_id NOT GLOB '*[^-A-Za-z0-9._:/]*' AND
length(session_id) = length(CAST(session_id AS BLOB)) AND
typeof(tokens) = 'integer' AND tokens >= 0 AND typeof(last_used) = 'real' AND abs(last_used) < 1e300
"""
_CONVERSATION, _OTHER = "metadata IS NOT NULL", "metadata IS NULL"
_SOUND_CHAIN = "typeof(root) = 'text' AND typeof(chain) = 'blob'"


@dataclass(frozen=True)
class StoredSession:
    """A session as it was when it was last written; `last_used` is in seconds since 1970.

    `chains` has the keys of its entries by the root of the model that made them, the chain used last first.
    """

    session_id: str
    tokens: int
    last_used: float
    pinned: bool
    chains: Mapping[str, Sequence[str]]
    is_conversation: bool = False
    """Whether a client made it as one."""


class IdleRow(NamedTuple):
    """A session that is not pinned; times are in seconds since 1970."""

    session_id: str
    tokens: int
    created_at: float
    last_used: float
    is_conversation: bool
    """Whether a client made it as one."""


class SessionStore:
    """The sessions in a database, whose rules for threads and errors hold here too."""

    def __init__(self, database: Database) -> None:
        self.changes = 0
        """How often rows were put or deleted."""
        self._database = database

    @property
    def generation(self) -> int:
        """Changes when the rows that were put are gone with their file."""
        return self._database.generation

    def put(
        self,
        sessions: Iterable[Session],
        chains: Mapping[str, Sequence[str]],
        root: str,
        pins: Mapping[str, bool],
    ) -> None:
        """Insert or change all of them, or none; `created_at` is when a session was first put.

        `chains` are those of sessions that were used, by their ids; others keep theirs, as all do those of
        other roots. `pins` says what users pinned and unpinned.
        """
        now = time.time()
        with self._database.write("save sessions") as connection:
            for one in sessions:
                connection.execute(_UPSERT, (one.session_id, one.tokens, one.last_used, one.pinned, now))
                if (chain := chains.get(one.session_id)) is not None:
                    packed = bytes.fromhex("".join(chain))
                    kept = self._database.sealing.close(name_of("chains", one.session_id, root), packed)
                    connection.execute(_UPSERT_CHAIN, (one.session_id, root, one.last_used, kept))
                    connection.execute(_DELETE_OLD_CHAINS, (one.session_id,))
            connection.executemany(
                "UPDATE sessions SET pinned = ? WHERE session_id = ?",
                [(pinned, name) for name, pinned in pins.items()],
            )
            self.changes += 1

    def put_forward(self, seconds: float) -> None:
        """Move all last uses forward by a jump of the clock, so that no session is older for it."""
        with self._database.write("save sessions") as connection:
            connection.execute(
                "UPDATE sessions SET last_used = last_used + ?1 WHERE last_used <= ?2",
                (seconds, time.time() - seconds),
            )

    def page(self, after: str = "") -> list[StoredSession]:
        """At most facts.MAX_SESSIONS in the order of their ids, from the first that is greater than `after`.

        Those whose row is damaged are left out.
        """
        with self._database.read("load sessions") as connection:
            rows = connection.execute(
                f"SELECT session_id, tokens, last_used, pinned, {_CONVERSATION} FROM sessions "
                f"WHERE session_id > ? AND {_SOUND} ORDER BY session_id LIMIT ?",
                (after, facts.MAX_SESSIONS),
            ).fetchall()
            last = rows[-1][0] if rows else after
            stored = connection.execute(
                "SELECT session_id, root, chain FROM chains "
                f"WHERE session_id > ? AND session_id <= ? AND {_SOUND_CHAIN} ORDER BY used DESC",
                (after, last),
            ).fetchall()
        chains: dict[str, dict[str, list[str]]] = {}
        for session_id, root, kept in stored:
            if (chain := _unpacked(self._database.sealing, session_id, root, kept)) is not None:
                chains.setdefault(session_id, {})[root] = chain
        return [
            StoredSession(
                session_id, tokens, last_used, bool(pinned), chains.get(session_id, {}), bool(is_one)
            )
            for session_id, tokens, last_used, pinned, is_one in rows
        ]

    def count(self) -> int:
        """How many there are."""
        with self._database.read("count sessions") as connection:
            (count,) = connection.execute("SELECT count(*) FROM sessions").fetchone()
            return int(count)

    def has(self, session_id: str) -> bool:
        """Whether there is one of that id."""
        with self._database.read("look for a session") as connection:
            query = "SELECT 1 FROM sessions WHERE session_id = ?"
            return connection.execute(query, (session_id,)).fetchone() is not None

    def idle_since(self, moment: float, *, conversations: bool = False) -> list[str]:
        """The ids of at most facts.MAX_SESSIONS that were not used since and are not pinned.

        Of `conversations` that clients made, or of all others.
        """
        with self._database.read("look for idle sessions") as connection:
            rows = connection.execute(
                "SELECT session_id FROM sessions WHERE NOT pinned AND last_used < ? "
                f"AND {_CONVERSATION if conversations else _OTHER} LIMIT ?",
                (moment, facts.MAX_SESSIONS),
            ).fetchall()
        return [name for (name,) in rows]

    def idle_page(self, after: str, limit: int) -> list[IdleRow]:
        """At most `limit` that are not pinned, in the order of their ids, from the first beyond `after`.

        Those whose row is damaged are left out.
        """
        with self._database.read("look for idle sessions") as connection:
            rows = connection.execute(
                f"SELECT session_id, tokens, CAST(created_at AS REAL), last_used, {_CONVERSATION} "
                f"FROM sessions WHERE session_id > ? AND NOT pinned AND {_SOUND} ORDER BY session_id LIMIT ?",
                (after, limit),
            ).fetchall()
        return [
            IdleRow(name, tokens, created_at, last_used, bool(is_one))
            for name, tokens, created_at, last_used, is_one in rows
        ]

    def idle_among(self, moments: Mapping[str, float]) -> list[str]:
        """Of these, the ids of those that were not used since the moment given and are not pinned."""
        with self._database.read("look for idle sessions") as connection:
            return [
                name
                for name, moment in moments.items()
                if connection.execute(
                    "SELECT 1 FROM sessions WHERE session_id = ? AND NOT pinned AND last_used < ?",
                    (name, moment),
                ).fetchone()
            ]

    def idle_longest_beyond(self, limit: int, *, conversations: bool = False) -> list[str]:
        """The ids of at most facts.MAX_SESSIONS to end so that `limit` are left: idle longest, not pinned.

        Of `conversations` that clients made, or of all others.
        """
        which = _CONVERSATION if conversations else _OTHER
        with self._database.read("look for idle sessions") as connection:
            rows = connection.execute(
                f"SELECT session_id FROM sessions WHERE NOT pinned AND {which} ORDER BY last_used "
                f"LIMIT min(?, max(0, (SELECT count(*) FROM sessions WHERE NOT pinned AND {which}) "
                f"+ (SELECT count(*) FROM sessions WHERE pinned AND {which}) - ?))",
                (facts.MAX_SESSIONS, limit),
            ).fetchall()
        return [name for (name,) in rows]

    def delete(self, session_ids: Iterable[str]) -> int:
        """Remove sessions and their records, all or none; how many sessions were there."""
        with self._database.write("delete sessions") as connection, closing(connection.cursor()) as cursor:
            cursor.executemany("DELETE FROM sessions WHERE session_id = ?", [(name,) for name in session_ids])
            self.changes += 1
            return cursor.rowcount


def _unpacked(sealing: Sealing, session_id: str, root: str, kept: bytes) -> list[str] | None:
    """The keys; None where the row is damaged."""
    try:
        chain = sealing.open(name_of("chains", session_id, root), kept)
    except ServerError:
        return None
    if len(chain) % _KEY_BYTES:
        return None
    return [chain[start : start + _KEY_BYTES].hex() for start in range(0, len(chain), _KEY_BYTES)]
