"""Responses in the background that have not ended, and which server makes each."""

import sqlite3
from typing import NamedTuple

from atlas_plugin.storage.database import Database


class OpenResponse(NamedTuple):
    """One of them."""

    tenant: str
    response_id: str
    server: str


def note(connection: sqlite3.Connection, tenant: str, response_id: str, server: str) -> None:
    """That server makes it. Within a transaction, as all that is noted of a response."""
    connection.execute(
        "INSERT OR REPLACE INTO open_responses (tenant, id, server) VALUES (?, ?, ?)",
        (tenant, response_id, server),
    )


def remove(connection: sqlite3.Connection, tenant: str, response_id: str) -> None:
    """It has ended, or was deleted."""
    connection.execute("DELETE FROM open_responses WHERE tenant = ? AND id = ?", (tenant, response_id))


def server_of(database: Database, tenant: str, response_id: str) -> str:
    """Which server makes it; empty: none does."""
    with database.read("look for an unfinished response") as connection:
        row = connection.execute(
            "SELECT server FROM open_responses WHERE tenant = ? AND id = ?", (tenant, response_id)
        ).fetchone()
    return "" if row is None else str(row[0])


def find_all(database: Database) -> list[OpenResponse]:
    """Those of all servers."""
    with database.read("look for unfinished responses") as connection:
        rows = connection.execute("SELECT tenant, id, server FROM open_responses").fetchall()
    return [OpenResponse(*row) for row in rows]
