"""The file of saved contexts and sessions: durable, private, and usable again after what went wrong."""

import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlas_plugin import ServerError, UnavailableError
from atlas_plugin.storage import database as database_module
from atlas_plugin.storage import listing
from atlas_plugin.storage.conversations import ConversationStore
from atlas_plugin.storage.database import SCHEMA_VERSION, Database
from atlas_plugin.storage.documents import DocumentStore
from atlas_plugin.storage.sessions import SessionStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "memory")
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> DocumentStore:
    return DocumentStore(database)


def test_durability_settings(database: Database) -> None:
    with database.read("look") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        database = Database(tmp_path / "deep" / "memory")
        DocumentStore(database).save("a", b"{}")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in database.path.parent.iterdir()}
    assert modes == dict.fromkeys(("contexts.sqlite3", "contexts.sqlite3-wal", "contexts.sqlite3-shm"), 0o600)
    assert stat.S_IMODE(database.path.parent.stat().st_mode) == 0o700
    database.close()


def test_an_open_directory_is_left_alone_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o755)
    database = Database(tmp_path)
    database.open()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert f"{tmp_path} is open to other users" in caplog.text
    database.close()
    database.path.chmod(0o644)
    database.open()
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600
    database.close()


def test_a_newer_schema_is_refused_and_untouched(database: Database) -> None:
    database.close()
    with sqlite3.connect(database.path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = database.path.read_bytes()
    with pytest.raises(UnavailableError, match=f"schema version {SCHEMA_VERSION + 1}.* run the newer ATLAS"):
        DocumentStore(database).save("a", b"{}")
    assert "schema version" in (database.problem() or "")
    assert database.path.read_bytes() == before


def test_a_file_of_the_first_schema_gets_what_it_lacks(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "contexts.sqlite3") as connection:
        connection.execute("CREATE TABLE contexts (id TEXT PRIMARY KEY, created, updated, state)")
        connection.execute("INSERT INTO contexts VALUES ('a', 1, 2, '{}')")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    database = Database(tmp_path)
    [listed] = listing.page(database, 10)
    assert (listed.context_id, listed.bytes, listed.session) == ("a", 2, None)
    database.close()


def test_a_file_of_the_second_schema_keeps_its_sessions(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "contexts.sqlite3") as connection:
        connection.execute("CREATE TABLE contexts (id TEXT PRIMARY KEY, created, updated, state)")
        connection.execute(
            "CREATE TABLE sessions "
            "(session_id TEXT PRIMARY KEY, tokens, last_used, pinned, created_at, chain)"
        )
        connection.execute("INSERT INTO sessions VALUES ('a', 5, 1.0, 1, 0.5, x'')")
        connection.execute("PRAGMA user_version = 2")
        connection.execute("INSERT INTO sessions VALUES ('b', 6, 2.0, 0, 0.5, zeroblob(64))")
    connection.close()
    database = Database(tmp_path)
    assert [one.chains for one in SessionStore(database).page()] == [{}, {"": ["00" * 32] * 2}]
    store = ConversationStore(database)
    store.append("a", [{"role": "user"}], 1000)
    assert store.load("a") == [b'{"role":"user"}']
    [listed, _] = listing.page(database, 10)
    assert listed.session is not None
    assert (listed.session.tokens, listed.session.pinned) == (5, True)
    database.close()


def test_a_file_that_is_no_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = Database(tmp_path)
    database.path.write_bytes(b"not a database, but long enough to be looked at " * 100)
    before = database.path.read_bytes()
    database.open()
    [aside] = tmp_path.glob("contexts.sqlite3.damaged-*")
    assert re.fullmatch(r"contexts\.sqlite3\.damaged-\d{8}-\d{6}", aside.name)
    assert aside.read_bytes() == before
    assert f"{database.path} was damaged (file is not a database): it is kept as {aside}" in caplog.text
    DocumentStore(database).save("a", b"{}")
    assert (database.problem(), aside.name in (database.damage or "")) == (None, True)
    database.close()


def test_a_file_that_is_damaged_while_it_is_open(tmp_path: Path, database: Database) -> None:
    store = DocumentStore(database)
    for number in range(200):
        store.save(f"{number:03}", b"[" + b"0," * 500 + b"0]")
    database.close()
    data = bytearray(database.path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    database.path.write_bytes(data)
    database.open()
    generation = database.generation
    with pytest.raises(ServerError, match=r"malformed.*it is kept as .*damaged-.*try again"):
        store.load("100")
    store.save("a", b"{}")
    assert [item.context_id for item in listing.page(database, 9)] == ["a"]
    assert (database.generation, database.problem()) == (generation + 1, None)


def test_another_server_has_moved_it_aside_already(tmp_path: Path, database: Database) -> None:
    store = DocumentStore(database)
    store.save("a", b"{}")
    with pytest.raises(ServerError, match="malformed"), database.read("look"):
        for path in [database.path, *tmp_path.glob("memory/*-*")]:
            path.unlink(missing_ok=True)
        database.path.touch()
        error = sqlite3.DatabaseError("malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
    assert not list(tmp_path.glob("memory/*damaged*"))
    store.save("b", b"{}")


def test_a_log_is_never_opened_with_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one server moves a damaged file and its log aside, another waits that would open what is left."""
    database, other = Database(tmp_path / "memory"), Database(tmp_path / "memory")
    store = DocumentStore(database)
    store.save("old", b"{}")
    renamed: list[str] = []
    opened = threading.Thread(target=DocumentStore(other).save, args=("new", b"{}"))
    rename = Path.rename

    def rename_slowly(path: Path, target: Path | str) -> Path:
        renamed.append(path.name)
        if len(renamed) == 1:
            opened.start()
            opened.join(0.2)
        assert opened.is_alive(), "it has opened the file whose log is gone"
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_slowly)
    error = sqlite3.DatabaseError("malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    kept = sqlite3.connect(database.path)  # or the log would go when the last one closes
    kept.execute("SELECT id FROM contexts").fetchall()
    with pytest.raises(ServerError, match="malformed"), database.read("look"):
        raise error
    opened.join()
    assert renamed == ["contexts.sqlite3-wal", "contexts.sqlite3-shm", "contexts.sqlite3"]
    kept.close()
    assert [item.context_id for item in listing.page(database, 9)] == ["new"]
    assert [item.context_id for item in listing.page(other, 9)] == ["new"]
    database.close()
    other.close()


def test_a_file_that_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_S", 0.01)
    database = Database(tmp_path)
    store = DocumentStore(database)
    store.save("a", b"{}")
    with sqlite3.connect(database.path) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        database.close()
        with pytest.raises(ServerError) as raised:
            store.save("a", b"{}")
    connection.close()
    assert f"database is locked; another process has kept {database.path} locked" in raised.value.message
    assert "disk space" not in raised.value.message
    store.save("a", b"{}")
    assert database.problem() is None
    database.close()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    database = Database(tmp_path / "file" / "memory")
    with pytest.raises(ServerError, match=r"Failed to open the context store: .*file/memory"):
        database.open()


def test_a_failed_write_is_reported_until_one_succeeds(store: DocumentStore, database: Database) -> None:
    store.save("a", b'{"n":1}')
    with database.read("limit the size of the file") as connection:
        connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(ServerError, match="Failed to save context state: database or disk is full; check"):
        store.save("a", b"[" + b"0," * 20000 + b"0]")
    assert "disk is full" in (database.problem() or "")
    loaded = store.load("a")
    assert loaded is not None
    assert loaded[1] == b'{"n":1}'
    store.save("a", b'{"n":2}')
    assert database.problem() is None


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from atlas_plugin import ServerError
from atlas_plugin.storage.documents import DocumentStore
from atlas_plugin.storage.database import Database

database = Database(Path(sys.argv[1]))
store = DocumentStore(database)
store.save("small", b"{}")
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, resource.RLIM_INFINITY))
try:
    store.save("large", b"0" * (1 << 20))
except ServerError as error:
    print(error.message)
print(database.problem() is not None)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.save("large", b"0" * (1 << 20))
print(database.problem(), len(store.load("large")[1]), store.load("small")[1])
"""
    result = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, cwd=ROOT, check=True
    )
    message, *after = result.stdout.splitlines()
    assert message.startswith("Failed to save context state: ")
    assert f"check the disk space and permissions of {tmp_path}" in message
    assert after == ["True", "None 1048576 b'{}'"]


def test_a_write_that_fails_leaves_nothing(store: DocumentStore, database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write("try") as connection:
        connection.execute("INSERT INTO contexts VALUES ('a', 1, 1, '{}')")
        raise ZeroDivisionError
    assert store.load("a") is None
    store.save("a", b"{}")


def test_a_file_that_was_removed_is_made_anew(store: DocumentStore, database: Database) -> None:
    store.save("a", b"{}")
    for path in database.path.parent.iterdir():
        path.unlink()
    store.save("b", b"{}")
    assert database.path.exists()
    assert [item.context_id for item in listing.page(database, 9)] == ["b"]


def problem_beside(database: Database) -> str | None:
    """What another thread is told while this one has the database to itself."""
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(database.problem()))
    thread.start()
    thread.join()
    return answers[0]


def test_status_does_not_wait_for_an_operation(database: Database) -> None:
    with database.read("hold it"):
        assert problem_beside(database) is None


def test_a_problem_is_told_while_it_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "memory"
    directory.touch()
    database = Database(directory)
    with pytest.raises(ServerError):
        database.open()
    connect, told = database_module._connect, []

    def tried(path: Path) -> sqlite3.Connection:
        told.append(problem_beside(database) or "")
        return connect(path)

    monkeypatch.setattr(database_module, "_connect", tried)
    with pytest.raises(ServerError):
        database.open()
    directory.unlink()
    database.open()
    assert [str(directory) in text for text in told] == [True, True]
    with database.read("hold it"):
        assert problem_beside(database) is None
    database.close()
