"""Lists names: a name may have a saved document, a session, or both."""

from dataclasses import dataclass

from atlas_plugin.storage.database import Database

# A damaged row may hold anything.
_COLUMNS = """
CAST(tokens AS INTEGER), CAST(last_used AS REAL), CAST(pinned AS INTEGER), CAST(created_at AS REAL)
"""
# Both tables are read only as far as the page can reach.
_PAGE = f"""
WITH names (id) AS (
    SELECT id FROM (
        SELECT id FROM contexts WHERE id > ?1 AND id < ?3 AND (?4 OR instr(id, '/') = 0) ORDER BY id LIMIT ?2
    )
    UNION
    SELECT id FROM (
        SELECT session_id AS id FROM sessions
        WHERE session_id > ?1 AND session_id < ?3 AND (?4 OR instr(session_id, '/') = 0)
        ORDER BY session_id LIMIT ?2
    )
)
SELECT names.id, length(state), created, updated, {_COLUMNS}
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


def page(database: Database, limit: int, after: str = "", tenant: str | None = None) -> list[Listed]:
    """At most `limit` names in order, from the first that is greater than `after`.

    Those of one tenant, or of all where it is None; names and `after` are full names.
    """
    first, last = (f"{tenant}/", f"{tenant}0") if tenant else ("", "\x7f")  # '0' comes after '/'
    with database.read("list contexts") as connection:
        rows = connection.execute(_PAGE, (max(after, first), limit, last, tenant != "")).fetchall()
    return [
        Listed(
            context_id,
            None if size is None else max(0, size - database.sealing.extra),
            created,
            updated,
            None if tokens is None else ListedSession(tokens, last_used, bool(pinned), created_at),
        )
        for context_id, size, created, updated, tokens, last_used, pinned, created_at in rows
    ]


def find_session(database: Database, session_id: str) -> ListedSession | None:
    """A session's row, or None where there is none."""
    with database.read("load context state") as connection:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM sessions WHERE session_id = ?", (session_id,)
        ).fetchone()
    return None if row is None else ListedSession(row[0], row[1], bool(row[2]), row[3])
