"""The ready-made plugin `shelf`: two servers go on with each other's conversations by one SQLite file."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from tests.server.conftest import StartServer
from tests.server.conversations import ASK_CITY, ONE_THREAD, Conversation, cold_chat
from tests.server.harness import Server
from tests.server.tiers import share, tier_of

REUSED = 0.95


def start(start_server: StartServer, directory: Path, name: str, **fields: Any) -> Server:
    values = {"path": str(directory / "shelf.sqlite3"), "deadline_ms": 10_000, **fields}
    rows = "".join(f"{field} = {json.dumps(value)}\n" for field, value in values.items())
    config = directory / "atlas.toml"
    config.write_text(f"[plugins.shelf]\n{rows}", encoding="utf-8")
    options = ["--atlas-memory-path", directory / name, "--atlas-config", config, "--atlas-plugin", "shelf"]
    server = start_server([*ONE_THREAD, *options])
    server.wait_until(lambda: tier_of(server, fields.get("layer", 4))["round_trip_ms"] is not None)
    return server


def test_two_servers_share_a_file(start_server: StartServer, tmp_path: Path) -> None:
    first, second = (start(start_server, tmp_path, name) for name in ("a", "b"))
    told = Conversation(1, 60)
    told.ask(first, atlas={})
    share(first, 4)
    answer = told.ask(second, ASK_CITY, atlas={})
    assert (answer.layer, answer.reason) == (4, None)
    assert answer.reused >= REUSED * answer.prompt
    assert answer.text == cold_chat(second, told.messages[:-1]).text
    found = tier_of(second, 4)
    assert (found["name"], found["address"]) == ("shelf", "plugin 'shelf'")
    assert (tmp_path / "shelf.sqlite3").stat().st_mode & 0o077 == 0


def test_it_keeps_no_more_than_it_may(start_server: StartServer, tmp_path: Path) -> None:
    server = start(start_server, tmp_path, "a", max_bytes=200_000, layer=7)
    Conversation(1, 60).ask(server, atlas={})
    share(server, 7)
    assert tier_of(server, 7)["written"]["bytes"] > 200_000
    with sqlite3.connect(tmp_path / "shelf.sqlite3") as file:
        (size,) = file.execute("SELECT sum(length(value)) FROM shelf").fetchone()
    assert 0 < size <= 200_000
