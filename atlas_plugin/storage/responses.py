"""The rows of responses: what each was asked and answered, and which it goes on from."""

import time
from typing import Any, NamedTuple

import msgspec

from atlas_plugin import json_text
from atlas_plugin.errors import NotFoundError, ServerError
from atlas_plugin.storage import open_responses
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.sealed_rows import name_of

UNKNOWN_EVENT = 0
"""For the number of a stream's last event, where it is not known."""
MAX_CHAIN = 10_000
"""Responses that go on from each other. A file that somebody changed may have them in a ring."""
_MAX_PRUNED = 1000

_UP = """
WITH RECURSIVE chain (id, previous, depth) AS (
    SELECT id, previous, 0 FROM responses WHERE tenant = ?1 AND id = ?2
    UNION ALL
    SELECT responses.id, responses.previous, depth + 1 FROM chain
    JOIN responses ON responses.tenant = ?1 AND responses.id = chain.previous
    WHERE depth < ?3
)
"""
_CHAIN = f"""{_UP}
SELECT chain.id, chain.previous, CAST(record AS BLOB) FROM chain
JOIN responses ON responses.tenant = ?1 AND responses.id = chain.id ORDER BY depth DESC
"""
# Up to the first, or to the one that is missing.
_ROOT = f"""{_UP}
SELECT iif(previous = '', id, previous) FROM chain ORDER BY depth DESC LIMIT 1
"""
# Those that others go on from stay as long as these: a conversation is pruned from its end.
_LEAVES = """
SELECT tenant, id FROM responses AS one WHERE created < ?1 AND NOT EXISTS (
    SELECT 1 FROM responses WHERE tenant = one.tenant AND previous = one.id
) ORDER BY created LIMIT ?2
"""


class _Record(msgspec.Struct):
    input: list[dict[str, Any]]
    response: msgspec.Raw
    exact: dict[str, Any] | None = None
    last_event: int | None = None


class Kept(NamedTuple):
    """A response, as JSON, the items of its own request, and how the model wrote the answer.

    `exact` is as atlas-abi.h has it, and None where that is not known.
    """

    id: str
    response: bytes
    input: list[dict[str, Any]]
    exact: dict[str, Any] | None = None
    last_event: int | None = None
    """The number of its last event; None where its events cannot be asked for."""


class ResponseStore:
    """The responses in a database, whose rules for threads and errors hold here too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(
        self,
        tenant: str,
        response_id: str,
        previous: str,
        items: list[dict[str, Any]],
        response: Any,
        *,
        exact: Any = None,
        last_event: int | None = None,
        server: str | None = None,
    ) -> None:
        """Keep a response, with the items of its request, and how the model wrote the answer.

        `server`: which is still to make it; None: none.
        """
        whole = {"input": items, "response": response, "exact": exact, "last_event": last_event}
        record = json_text.encode(whole)
        kept = self._database.sealing.close(name_of("responses", tenant, response_id), record)
        with self._database.write("keep a response") as connection:
            connection.execute(
                "INSERT OR REPLACE INTO responses (tenant, id, previous, created, record) "
                "VALUES (?, ?, ?, ?, ?)",
                (tenant, response_id, previous, time.time(), kept),
            )
            if server is not None:
                open_responses.note(connection, tenant, response_id, server)
            elif response.get("background"):
                open_responses.remove(connection, tenant, response_id)

    def get(self, tenant: str, response_id: str) -> Kept:
        """The response. Raises NotFoundError where there is none."""
        with self._database.read("load a response") as connection:
            row = connection.execute(
                "SELECT CAST(record AS BLOB) FROM responses WHERE tenant = ? AND id = ?",
                (tenant, response_id),
            ).fetchone()
        if row is None:
            raise NotFoundError(f"there is no response '{response_id}': it was deleted, or never kept")
        return self._opened(tenant, response_id, row[0])

    def chain(self, tenant: str, response_id: str) -> list[Kept]:
        """The response and all that it goes on from, the first of them first.

        Raises NotFoundError where one is missing.
        """
        with self._database.read("load responses") as connection:
            rows = connection.execute(_CHAIN, (tenant, response_id, MAX_CHAIN)).fetchall()
        missing = rows[0][1] if rows else response_id
        if missing:
            raise NotFoundError(f"there is no response '{missing}': it was deleted, or never kept")
        return [self._opened(tenant, one, record) for one, _, record in rows]

    def delete(self, tenant: str, response_id: str) -> bool:
        """Remove a response; whether there was one."""
        with self._database.write("delete a response") as connection:
            found = connection.execute(
                "DELETE FROM responses WHERE tenant = ? AND id = ?", (tenant, response_id)
            )
            return found.rowcount > 0

    def first_of(self, tenant: str, response_id: str) -> str:
        """The name of the response that all began with, which may be gone; empty where there is none."""
        with self._database.read("load responses") as connection:
            row = connection.execute(_ROOT, (tenant, response_id, MAX_CHAIN)).fetchone()
        return str(row[0]) if row else ""

    def is_gone_on_from(self, tenant: str, first: str) -> bool:
        """Whether a first response is there, or any that goes on from it at once."""
        query = "SELECT 1 FROM responses WHERE tenant = ?1 AND (id = ?2 OR previous = ?2) LIMIT 1"
        with self._database.read("load responses") as connection:
            return connection.execute(query, (tenant, first)).fetchone() is not None

    def prune(self, ttl_s: float, limit: int) -> int:
        """Remove what is older, and the oldest beyond a limit (0: none of these); how many were removed.

        Not those that others go on from, nor more than a thousand: call it again until it removes none.
        """
        old = self._leaves(time.time() - ttl_s, _MAX_PRUNED) if ttl_s > 0 else []
        if limit > 0 and not old and (excess := self.count() - limit) > 0:
            old = self._leaves(float("inf"), min(excess, _MAX_PRUNED))
        if old:
            with self._database.write("delete old responses") as connection:
                connection.executemany("DELETE FROM responses WHERE tenant = ? AND id = ?", old)
        return len(old)

    def _leaves(self, before: float, limit: int) -> list[tuple[str, str]]:
        with self._database.read("look for old responses") as connection:
            return connection.execute(_LEAVES, (before, limit)).fetchall()

    def count(self) -> int:
        """How many there are."""
        with self._database.read("count responses") as connection:
            (count,) = connection.execute("SELECT count(*) FROM responses").fetchone()
            return int(count)

    def _opened(self, tenant: str, response_id: str, kept: bytes) -> Kept:
        record = self._database.sealing.open(name_of("responses", tenant, response_id), kept)
        try:
            opened = msgspec.json.decode(record, type=_Record)
        except (msgspec.MsgspecError, RecursionError):
            raise ServerError(f"the response '{response_id}' is damaged: delete it") from None
        return Kept(response_id, bytes(opened.response), opened.input, opened.exact, opened.last_event)
