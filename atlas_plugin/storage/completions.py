"""The rows of chat completions, in the table of responses: what each was asked and answered."""

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from atlas_plugin import json_text
from atlas_plugin.errors import NotFoundError, ServerError, ValidationError
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.sealed_rows import name_of

_T = TypeVar("_T")

log = logging.getLogger("atlas")

PREFIX = "chatcmpl-"
"""What ids of chat completions begin with, and those of responses do not."""
# Stands where a response has the one that it goes on from. By it SQLite finds them all, in the order in which
# they came.
_KIND = "chat.completion"
_AT_ONCE = 128
"""Rows that are looked at before others may use the database."""
_LAST = 2**63 - 1
_ROWS = """
SELECT rowid, id, CAST(record AS BLOB) FROM responses
WHERE tenant = ? AND previous = ? AND rowid {} ? ORDER BY rowid {} LIMIT ?
"""
_ASCENDING, _DESCENDING = _ROWS.format(">", "ASC"), _ROWS.format("<", "DESC")


class About(msgspec.Struct):
    """What completions can be found by."""

    model: str = ""
    metadata: dict[str, str] = {}


class Page(NamedTuple):
    """Some completions of a list, as JSON, by their ids; and whether there are more."""

    completions: dict[str, bytes]
    has_more: bool


class _Kept(msgspec.Struct):
    input: msgspec.Raw
    response: msgspec.Raw


class CompletionStore:
    """The chat completions in a database, whose rules for threads and errors hold here too.

    What is damaged raises ServerError where it is asked for by its id, and is left out of lists, with a line
    in the log.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, tenant: str, completion: Any, messages: list[Any]) -> None:
        """Keep a completion, with the messages of its request. Raises ValidationError for what is none."""
        name = completion.get("id") if isinstance(completion, dict) else None
        if not isinstance(name, str) or not name.startswith(PREFIX):
            raise ValidationError("a plugin made something else of it")
        record = self._closed(tenant, name, {"input": messages, "response": completion})
        with self._database.write("keep a chat completion") as connection:
            connection.execute(
                "INSERT INTO responses (tenant, id, previous, created, record) VALUES (?, ?, ?, ?, ?)",
                (tenant, name, _KIND, time.time(), record),
            )

    def get(self, tenant: str, name: str) -> bytes:
        """The completion, as JSON. Raises NotFoundError where there is none."""
        return bytes(self._record(tenant, name).response)

    def messages(self, tenant: str, name: str) -> list[Any]:
        """What the request of a completion said. Raises NotFoundError where there is none."""
        return _decoded(name, self._record(tenant, name).input, list[Any])

    def set_metadata(self, tenant: str, name: str, metadata: Mapping[str, str]) -> bytes:
        """The completion, with these metadata from now on. Raises NotFoundError where there is none."""
        with self._database.write("change a chat completion") as connection:
            kept = self._found(connection, tenant, name)
            completion = _decoded(name, kept.response, dict[str, Any]) | {"metadata": dict(metadata)}
            record = self._closed(tenant, name, {"input": kept.input, "response": completion})
            connection.execute(
                "UPDATE responses SET record = ? WHERE tenant = ? AND id = ?", (record, tenant, name)
            )
        return json_text.encode(completion)

    def delete(self, tenant: str, name: str) -> bool:
        """Remove a completion; whether there was one."""
        with self._database.write("delete a chat completion") as connection:
            found = connection.execute(
                "DELETE FROM responses WHERE tenant = ? AND id = ? AND previous = ?", (tenant, name, _KIND)
            )
            return found.rowcount > 0

    def page(
        self,
        tenant: str,
        limit: int,
        *,
        after: str = "",
        is_descending: bool = False,
        is_wanted: Callable[[About], bool] | None = None,
    ) -> Page:
        """Those that are wanted, in the order in which they were kept, from the one behind `after`.

        Raises NotFoundError where there is none of that id.
        """
        place = self._place(tenant, after) if after else (_LAST if is_descending else 0)
        found: dict[str, bytes] = {}
        n_at_once = _AT_ONCE if is_wanted else limit + 1
        while True:
            n = 0
            with self._database.read("list chat completions") as connection:
                rows = connection.execute(
                    _DESCENDING if is_descending else _ASCENDING, (tenant, _KIND, place, n_at_once)
                )
                for place, name, record in rows:  # noqa: B007 (the next rows begin there)
                    n += 1
                    completion = self._shown(tenant, name, record, is_wanted)
                    if completion is not None and len(found) == limit:
                        return Page(found, has_more=True)
                    if completion is not None:
                        found[name] = completion
            if n < n_at_once:
                return Page(found, has_more=False)

    def _shown(
        self, tenant: str, name: str, record: bytes, is_wanted: Callable[[About], bool] | None
    ) -> bytes | None:
        try:
            completion = self._opened(tenant, name, record).response
            if is_wanted is None or is_wanted(_decoded(name, completion, About)):
                return bytes(completion)
        except ServerError as error:
            log.warning("%s", error.message)
        return None

    def _place(self, tenant: str, name: str) -> int:
        with self._database.read("list chat completions") as connection:
            [place] = _row_of(connection, "rowid", tenant, name)
        return int(place)

    def _record(self, tenant: str, name: str) -> _Kept:
        with self._database.read("load a chat completion") as connection:
            return self._found(connection, tenant, name)

    def _found(self, connection: sqlite3.Connection, tenant: str, name: str) -> _Kept:
        [record] = _row_of(connection, "CAST(record AS BLOB)", tenant, name)
        return self._opened(tenant, name, record)

    def _closed(self, tenant: str, name: str, record: Mapping[str, Any]) -> bytes:
        return self._database.sealing.close(name_of("responses", tenant, name), json_text.encode(record))

    def _opened(self, tenant: str, name: str, record: bytes) -> _Kept:
        return _decoded(name, self._database.sealing.open(name_of("responses", tenant, name), record), _Kept)


def _row_of(connection: sqlite3.Connection, column: str, tenant: str, name: str) -> tuple[Any, ...]:
    query = f"SELECT {column} FROM responses WHERE tenant = ? AND id = ? AND previous = ?"
    row: tuple[Any, ...] | None = connection.execute(query, (tenant, name, _KIND)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no chat completion '{name}': it was deleted, or never kept")
    return row


def _decoded(name: str, text: bytes | msgspec.Raw, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        raise ServerError(f"the chat completion '{name}' is damaged: delete it") from None
