"""Documents in a SQLite file, and their passages in an index of words (FTS5)."""

import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas_plugin.storage import private_sqlite

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    number INTEGER PRIMARY KEY, tenant TEXT NOT NULL, id TEXT NOT NULL, title TEXT NOT NULL,
    characters INTEGER NOT NULL, passages INTEGER NOT NULL, added REAL NOT NULL, UNIQUE (tenant, id)
);
CREATE TABLE IF NOT EXISTS passages (
    number INTEGER PRIMARY KEY, document INTEGER NOT NULL, position INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS passages_document ON passages (document);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (
    tenant, title, text, tokenize = 'unicode61 remove_diacritics 2'
)
"""
# Words of the title count twice, the tenant's name counts for nothing.
_SEARCH = """
SELECT documents.id, documents.title, passages.position, words.text
FROM words
JOIN passages ON passages.number = words.rowid JOIN documents ON documents.number = passages.document
WHERE words MATCH ? ORDER BY bm25(words, 0.0, 2.0, 1.0), words.rowid LIMIT ?
"""
_WORD = re.compile(r"\w+")
_MAX_WORDS = 64
# One word to the index, which no tenant's name is otherwise.
_NOBODY = "everybody"


class TooMuchError(Exception):
    """A tenant has more than it may."""


@dataclass(frozen=True)
class Passage:
    """A part of a document; `number` counts from 0."""

    id: str
    title: str
    number: int
    text: str


class Collection:
    """Each tenant's documents. Any thread. Raises OSError and sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        # Who searches does not wait for who adds.
        self._writer = private_sqlite.connect(path, _SCHEMA, 1)
        self._reader = private_sqlite.connect(path, _SCHEMA, 1)
        self._writing = threading.Lock()
        self._reading = threading.Lock()

    def add(
        self,
        tenant: str,
        document_id: str,
        title: str,
        passages: list[str],
        max_documents: int,
        max_characters: int,
    ) -> None:
        """Add a document, in the place of one of that id. Raises TooMuchError."""
        characters = sum(map(len, passages))
        with self._transaction() as connection:
            _delete(connection, tenant, document_id)
            [(documents, before)] = connection.execute(
                "SELECT COUNT(*), IFNULL(SUM(characters), 0) FROM documents WHERE tenant = ?", (tenant,)
            ).fetchall()
            if documents >= max_documents:
                raise TooMuchError(f"there are {max_documents} documents, which is the most")
            if before + characters > max_characters:
                raise TooMuchError(f"all documents together may have {max_characters} characters")
            document = connection.execute(
                "INSERT INTO documents (tenant, id, title, characters, passages, added) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (tenant, document_id, title, characters, len(passages), time.time()),
            ).lastrowid
            for position, text in enumerate(passages):
                number = connection.execute(
                    "INSERT INTO passages (document, position) VALUES (?, ?)", (document, position)
                ).lastrowid
                connection.execute(
                    "INSERT INTO words (rowid, tenant, title, text) VALUES (?, ?, ?, ?)",
                    (number, tenant or _NOBODY, title, text),
                )

    def delete(self, tenant: str, document_id: str) -> bool:
        """Delete a document; whether there was one."""
        with self._transaction() as connection:
            return _delete(connection, tenant, document_id)

    def documents(self, tenant: str, after: str, limit: int) -> list[dict[str, Any]]:
        """The documents by id, from the one after that."""
        with self._reading:
            rows = self._reader.execute(
                "SELECT id, title, characters, passages, added FROM documents WHERE tenant = ? AND id > ? "
                "ORDER BY id LIMIT ?",
                (tenant, after, limit),
            ).fetchall()
        names = ("id", "title", "characters", "passages", "added")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def search(self, tenants: set[str], text: str, limit: int) -> list[Passage]:
        """The passages that fit the text best, by BM25, best first."""
        # Quoted, so that no word of the text is an operator of the query.
        words = list(dict.fromkeys(word.lower() for word in _WORD.findall(text)))[:_MAX_WORDS]
        if not words:
            return []
        owners = " OR ".join(f'"{tenant or _NOBODY}"' for tenant in sorted(tenants))
        wanted = " OR ".join(f'"{word}"' for word in words)
        query = f"tenant : ({owners}) AND {{title text}} : ({wanted})"
        with self._reading:
            rows = self._reader.execute(_SEARCH, (query, limit)).fetchall()
        return [Passage(*row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing, self._writer as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection


def _delete(connection: sqlite3.Connection, tenant: str, document_id: str) -> bool:
    row = connection.execute(
        "SELECT number FROM documents WHERE tenant = ? AND id = ?", (tenant, document_id)
    ).fetchone()
    if row is None:
        return False
    connection.execute(
        "DELETE FROM words WHERE rowid IN (SELECT number FROM passages WHERE document = ?)", row
    )
    connection.execute("DELETE FROM passages WHERE document = ?", row)
    connection.execute("DELETE FROM documents WHERE number = ?", row)
    return True
