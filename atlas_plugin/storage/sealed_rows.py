"""Encrypts the rows of a database from before encryption was switched on, once."""

import logging
import sqlite3
from pathlib import Path

from atlas_plugin.storage.sealing import Sealing

log = logging.getLogger("atlas")

_ALL_SEALED = 0x41544C53
"""The file's application id once nothing in it is plain: "ATLS"."""
_AT_ONCE = 64
_COLUMNS = (
    ("contexts", "state", ("id",)),
    ("messages", "message", ("session_id", "position")),
    ("chains", "chain", ("session_id", "root")),
    ("responses", "record", ("tenant", "id")),
    ("exact_answers", "answer", ("session_id", "bytes")),
    ("sessions", "metadata", ("session_id",)),
)


def name_of(table: str, *key: object) -> str:
    """By which the value of a row is encrypted, so that none passes for that of another row."""
    return "/".join((table, *map(str, key)))


def seal_rows(connection: sqlite3.Connection, sealing: Sealing, path: Path) -> None:
    """Encrypt what is not, and leave nothing of it in the file's free pages.

    Raises sqlite3.Error and ServerError.
    """
    connection.execute("PRAGMA secure_delete = ON").fetchall()
    [(application,)] = connection.execute("PRAGMA application_id").fetchall()
    if application == _ALL_SEALED:
        return
    n = sum(_seal_column(connection, sealing, *each) for each in _COLUMNS)
    if n > 0:
        log.info("%d rows of %s were encrypted", n, path)
    # Pages that were free before may hold what was deleted long ago; and so may the log.
    connection.execute("VACUUM")
    [(is_busy, _, _)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if is_busy:
        raise sqlite3.OperationalError("another process uses it")
    connection.execute(f"PRAGMA application_id = {_ALL_SEALED}")


def _seal_column(
    connection: sqlite3.Connection, sealing: Sealing, table: str, column: str, key: tuple[str, ...]
) -> int:
    rows = [row for (row,) in connection.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
    n = 0
    for begin in range(0, len(rows), _AT_ONCE):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            n += sum(
                _seal_row(connection, sealing, table, column, key, row)
                for row in rows[begin : begin + _AT_ONCE]
            )
    return n


def _seal_row(
    connection: sqlite3.Connection, sealing: Sealing, table: str, column: str, key: tuple[str, ...], row: int
) -> bool:
    query = f"SELECT CAST({column} AS BLOB), {', '.join(key)} FROM {table} WHERE rowid = ?"
    found = connection.execute(query, (row,)).fetchone()
    if found is None or found[0] is None or sealing.is_sealed(found[0]):
        return False
    value = sealing.close(name_of(table, *found[1:]), found[0])
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
    return True
