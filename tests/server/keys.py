"""Servers with several API keys, and what the holder of one key sees."""

import copy
from pathlib import Path

from tests.server.conversations import memory_options
from tests.server.harness import Server, http_client

ADA, BEN, ADMIN = "key-of-ada", "key-of-ben", "key-of-the-admin"


def key_options(directory: Path) -> list[str | Path]:
    """Options of a server with a memory, two keys and an admin's key."""
    return [*memory_options(directory), "--api-key", f"{ADA},{BEN}", "--atlas-admin-key", ADMIN]


def with_key(server: Server, key: str | None, header: str = "Authorization") -> Server:
    """The same server, called with that key; None: without one."""
    value = f"Bearer {key}" if header == "Authorization" else str(key)
    caller = copy.copy(server)
    caller.client = http_client(server.url, {} if key is None else {header: value})
    return caller
