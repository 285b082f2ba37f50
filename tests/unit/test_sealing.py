"""Rows that the server encrypts: read back, listed with their own sizes, and old ones encrypted."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atlas_plugin.errors import ServerError
from atlas_plugin.storage import listing
from atlas_plugin.storage.conversations import ConversationStore
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.documents import DocumentStore
from atlas_plugin.storage.memory_records import Session
from atlas_plugin.storage.sealing import Sealing
from atlas_plugin.storage.sessions import SessionStore
from atlas_plugin.testing.fake_host import FakeHost

SECRET = b"the parrot is called Xanthippe"
ROOT = "ab" * 32
KEY = "cd" * 32
MESSAGES = [{"role": "user", "content": SECRET.decode()}, {"role": "assistant", "content": "a fine name"}]
Open = Callable[[bool], Database]


@pytest.fixture
def opening(tmp_path: Path) -> Iterator[Open]:
    opened: list[Database] = []

    def make(encrypted: bool) -> Database:
        opened.append(Database(tmp_path, Sealing(FakeHost() if encrypted else None)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def fill(database: Database) -> None:
    DocumentStore(database).save("note", SECRET)
    ConversationStore(database).append("ada", MESSAGES, 1 << 20)
    session = Session("ada", 1, 7, [KEY], 1000.0, False, 0, 0)
    SessionStore(database).put([session], {"ada": [KEY]}, ROOT, {})


def check(database: Database) -> None:
    found = DocumentStore(database).load("note")
    assert found
    assert (found[0].bytes, found[1]) == (len(SECRET), SECRET)
    assert [len(text) for text in ConversationStore(database).load("ada")] == sizes()
    assert ConversationStore(database).size("ada") == sum(sizes())
    [session] = SessionStore(database).page()
    assert session.chains == {ROOT: [KEY]}
    [listed] = [each for each in listing.page(database, 1000) if each.context_id == "note"]
    assert listed.bytes == len(SECRET)


def sizes() -> list[int]:
    return [len(f'{{"role":"{one["role"]}","content":"{one["content"]}"}}') for one in MESSAGES]


def shown(directory: Path) -> list[str]:
    return [
        path.name
        for path in directory.glob("contexts.sqlite3*")
        if any(part in path.read_bytes() for part in (SECRET, b"a fine name", bytes.fromhex(KEY)))
    ]


def test_what_is_kept_is_encrypted_and_read_back(opening: Open, tmp_path: Path) -> None:
    database = opening(True)
    fill(database)
    check(database)
    assert shown(tmp_path) == []
    assert DocumentStore(database).delete("note") == len(SECRET)


def test_limits_count_what_was_said(opening: Open) -> None:
    database = opening(True)
    store = ConversationStore(database)
    for _ in range(3):
        store.append("ada", MESSAGES, 2 * sum(sizes()))
    assert len(store.load("ada")) == 4
    grown = [*MESSAGES, *MESSAGES, *MESSAGES]
    store.replace({"ada": grown}, 1 << 20)
    assert len(store.load("ada")) == 6


def test_old_rows_are_encrypted_and_leave_no_trace(opening: Open, tmp_path: Path) -> None:
    plain = opening(False)
    fill(plain)
    for number in range(100):
        DocumentStore(plain).save(f"many/{number}", SECRET)
    for number in range(50):
        DocumentStore(plain).delete(f"many/{number}")  # its pages are free, and hold it still
    assert shown(tmp_path)
    plain.close()
    database = opening(True)
    check(database)
    assert shown(tmp_path) == []
    assert database.not_sealed is None


def test_what_cannot_be_encrypted_yet_is_said_and_tried_again(opening: Open, tmp_path: Path) -> None:
    plain = opening(False)
    fill(plain)
    other = sqlite3.connect(tmp_path / "contexts.sqlite3", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM contexts").fetchall()
    database = opening(True)
    try:
        check(database)
        assert database.not_sealed and "tries again" in database.not_sealed
    finally:
        other.close()
    plain.close()
    database.close()
    again = opening(True)
    check(again)
    assert again.not_sealed is None
    assert shown(tmp_path) == []


def test_rows_are_those_of_their_names(opening: Open, tmp_path: Path) -> None:
    database = opening(True)
    fill(database)
    DocumentStore(database).save("other", b"{}")
    with sqlite3.connect(tmp_path / "contexts.sqlite3") as rows:
        rows.execute(
            "UPDATE contexts SET state = (SELECT state FROM contexts WHERE id = 'note') WHERE id = 'other'"
        )
        rows.execute("UPDATE messages SET message = (SELECT message FROM messages WHERE position = 0)")
        rows.execute("UPDATE chains SET root = ?", ("ef" * 32,))
    with pytest.raises(ServerError, match="contexts/other is damaged"):
        DocumentStore(database).load("other")
    with pytest.raises(ServerError, match="messages/ada/1 is damaged"):
        ConversationStore(database).load("ada")
    [session] = SessionStore(database).page()
    assert session.chains == {}
    assert ConversationStore(database).replace({"ada": MESSAGES}, 1 << 20) == {}
    assert len(ConversationStore(database).load("ada")) == 2


def test_without_the_key_nothing_encrypted_is_given_out(opening: Open) -> None:
    database = opening(True)
    fill(database)
    database.close()
    with pytest.raises(ServerError, match="contexts/note is encrypted, and no key is given"):
        DocumentStore(opening(False)).load("note")
