"""Saved contexts and sessions under one roof: what has a name."""

from dataclasses import dataclass

from atlas_plugin.database import Database

# Both tables are read only as far as the page can reach.
_PAGE = """
WITH names (id) AS (
    SELECT id FROM (SELECT id FROM contexts WHERE id > ?1 ORDER BY id LIMIT ?2)
    UNION
    SELECT id FROM (SELECT session_id AS id FROM sessions WHERE session_id > ?1 ORDER BY session_id LIMIT ?2)
)
SELECT names.id, length(state), created, updated, tokens, last_used, pinned, created_at
FROM names LEFT JOIN contexts ON contexts.id = names.id LEFT JOIN sessions ON session_id = names.id
ORDER BY names.id LIMIT ?2
"""


@dataclass(frozen=True)
class ListedSession:
    """The columns of a session's row that say more than its name; times are in seconds since 1970."""

    tokens: int
    last_used: float
    pinned: bool
    created_at: float


@dataclass(frozen=True)
class Listed:
    """A name, and what goes by it: a saved context (else bytes and times are None), a session, or both."""

    context_id: str
    bytes: int | None
    created: float | None
    updated: float | None
    session: ListedSession | None


def page(database: Database, limit: int, after: str = "") -> list[Listed]:
    """At most `limit` names in order, from the first that is greater than `after`."""
    with database.read("list contexts") as connection:
        rows = connection.execute(_PAGE, (after, limit)).fetchall()
    return [
        Listed(
            context_id,
            size,
            created,
            updated,
            None if tokens is None else ListedSession(tokens, last_used, bool(pinned), created_at),
        )
        for context_id, size, created, updated, tokens, last_used, pinned, created_at in rows
    ]
