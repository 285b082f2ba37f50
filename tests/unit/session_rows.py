"""What tests of sessions look at, and how they use one."""

import time
from pathlib import Path
from typing import Any

from atlas_plugin.storage.database import Database
from atlas_plugin.storage.memory_records import Session
from atlas_plugin.storage.sessions import SessionStore
from atlas_plugin.testing import FakeHost

ROOT, OTHER_ROOT = "ab" * 32, "cd" * 32
KEYS = ("00" * 31 + "01", "ff" * 32)


def rows(directory: Path) -> dict[str, tuple[int, float, bool, tuple[str, ...]]]:
    database = Database(directory)
    found = SessionStore(database).page()
    database.close()
    chains = {row.session_id: tuple(row.chains.get(ROOT, ())) for row in found}
    return {row.session_id: (row.tokens, row.last_used, row.pinned, chains[row.session_id]) for row in found}


def use(host: FakeHost, session_id: str, **state: Any) -> Session:
    return host.use_session(
        session_id, **{"tokens": 300, "chain": KEYS, "last_used": time.time(), "ram_bytes": 10, **state}
    )
