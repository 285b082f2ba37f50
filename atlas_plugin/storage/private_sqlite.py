"""SQLite files that plugins keep to themselves, each with a schema of its own."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from atlas_plugin.storage import private_files

_BUSY_TIMEOUT_S = 5.0


def connect(path: Path, schema: str, version: int) -> sqlite3.Connection:
    """Open the file, made with mode 0600 where it is missing; a commit outlives the process.

    `schema` holds the statements that make version `version`, and does nothing to a file that has it. Any
    thread may use the connection, one at a time. Raises OSError, and sqlite3.Error, also for a file of a
    newer version.
    """
    private_files.make_directory(path.parent)
    # SQLite gives its -wal and -shm files the mode of the file itself.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        [(found,)] = connection.execute("PRAGMA user_version").fetchall()
        if found > version:
            raise sqlite3.DatabaseError(f"{path} has version {found}, and this ATLAS knows {version}")
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        # What was committed is lost by a power cut only, and no commit waits for the disk.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(f"BEGIN IMMEDIATE; {schema}; PRAGMA user_version = {version}; COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def place(given: str, memory_path: str, name: str) -> Path | None:
    """The file that is given, else the plugin's own under the memory path; None where there is neither."""
    if given:
        return Path(given)
    return Path(memory_path) / "plugins" / f"{name}.sqlite3" if memory_path else None
