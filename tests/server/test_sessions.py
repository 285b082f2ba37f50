"""Sessions: named conversations whose KV stays, is listed, pinned and deleted."""

import hashlib
import random
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.gguf_files import WIDE_KV_BYTES, WIDE_VOCABULARY, write_wide_model
from tests.server.harness import Server

BLOCK = 16
MIB = 1 << 20
CONTEXT = 1024
SESSIONS, SLOTS, TURNS = 1000, 4, 3
SEED = 20261122


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wide_model(tmp_path_factory.mktemp("model") / "wide.gguf", CONTEXT)


def arguments(memory: Path, *more: str, ram: int = 64 * MIB, disk: int = 1024 * MIB) -> list[str | Path]:
    return [
        "-np", str(SLOTS), "-c", str(SLOTS * CONTEXT), "-t", "1",
        "--atlas-memory-path", memory, "--atlas-block-tokens", str(BLOCK),
        "--atlas-l1-cache-size", str(ram), "--atlas-l2-cache-size", str(disk), *more,
    ]  # fmt: skip


def tokens(seed: int, count: int) -> list[int]:
    chooser = random.Random(seed)
    return [chooser.randrange(WIDE_VOCABULARY) for _ in range(count)]


def complete(server: Server, prompt: Sequence[int], session: str | None, **options: Any) -> int:
    """Computes a prompt; the tokens that were reused."""
    atlas = {"session_id": session} if session else {}
    body = {"prompt": list(prompt), "n_predict": 0, "temperature": 0, "atlas": atlas, **options}
    response = server.post("/completion", body)
    assert response.status_code == 200, response.text
    reused: int = response.json()["atlas"]["reused_tokens"]
    return reused


def flush(server: Server) -> None:
    assert server.post("/v1/atlas/memory/flush", {}).status_code == 200


def memory(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/v1/atlas/status").json()["data"]["memory"]
    return found


def listed(server: Server) -> dict[str, dict[str, Any]]:
    """The sessions that memory/list has, by id."""
    entries: dict[str, dict[str, Any]] = {}
    cursor = None
    while True:
        answer = server.post("/v1/atlas/memory/list", {"limit": 100} | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        entries |= {entry["context_id"]: entry["session"] for entry in data["contexts"] if entry["session"]}
        cursor = data["next_cursor"]
        if not cursor:
            return entries


def evict_all_others(server: Server, megabytes: int) -> None:
    """Conversations without a name that would push out everything else."""
    for seed in range(megabytes):
        complete(server, tokens(10_000 + seed, MIB // WIDE_KV_BYTES), None)


def test_a_thousand_sessions_on_four_slots(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(arguments(tmp_path / "memory"))
    chooser = random.Random(SEED)

    def take_turn(number: int, turn: int) -> None:
        prompt = tokens(number, 48 + 24 * turn)
        reused = complete(server, prompt, f"session-{number}")
        assert turn == 0 or reused >= 0.95 * (48 + 24 * (turn - 1)), f"session {number}, turn {turn}"

    with ThreadPoolExecutor(8) as clients:
        for turn in range(TURNS):
            order = chooser.sample(range(SESSIONS), SESSIONS)
            list(clients.map(partial(take_turn, turn=turn), order))
    found = memory(server)
    assert found["sessions"] == SESSIONS
    # A session that was still in its slot needs no layer; nearly none was.
    assert found["results"]["restored"] >= 0.95 * SESSIONS * (TURNS - 1)
    assert found["ram"]["bytes"] <= found["ram"]["budget"]


def test_sessions_outlive_what_has_no_name(
    start_server: StartServer, wide_model: Path, tmp_path: Path
) -> None:
    server = start_server(arguments(tmp_path / "memory", ram=8 * MIB, disk=32 * MIB), model=wide_model)
    complete(server, tokens(1, 200), "ada")
    complete(server, tokens(2, 200), None)
    evict_all_others(server, 64)
    flush(server)
    server.kill()
    server.start()
    server.wait_until(lambda: memory(server)["disk"]["index_complete"])
    assert complete(server, [*tokens(2, 200), 1], None) == 0
    assert complete(server, [*tokens(1, 200), 1], "ada") == 200


def test_a_flush_makes_the_names_durable(start_server: StartServer, wide_model: Path, tmp_path: Path) -> None:
    memory_path = tmp_path / "memory"
    server = start_server(arguments(memory_path), model=wide_model)
    for number in range(20):
        complete(server, tokens(number, 20), f"session-{number}")
        flush(server)
        uri = f"{(memory_path / 'contexts.sqlite3').as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            (stored,) = connection.execute("SELECT count(*) FROM sessions").fetchone()
        assert stored == number + 1


def test_a_cache_key_names_a_session(start_server: StartServer, wide_model: Path, tmp_path: Path) -> None:
    """OpenAI's parameter. What conversations that share one say is not recorded as one."""
    server = start_server(arguments(tmp_path / "memory"), model=wide_model)
    named = [(None, "user-7"), (None, "user 7"), ("named", "user-8"), (None, 7)]
    for seed, (session, key) in enumerate(named):
        complete(server, tokens(seed, 4 * BLOCK), session, prompt_cache_key=key)
    flush(server)
    hashed = "sha256:" + hashlib.sha256(b"user 7").hexdigest()
    assert set(listed(server)) == {"user-7", hashed, "named"}


def test_a_session_that_begins_with_restored_state(
    start_server: StartServer, wide_model: Path, tmp_path: Path
) -> None:
    server = start_server(arguments(tmp_path / "memory"), model=wide_model)
    complete(server, tokens(1, 200), None, id_slot=0)
    complete(server, tokens(2, 200), None, id_slot=0)
    assert complete(server, [*tokens(1, 200), 1, 2], "ada", id_slot=0) == 200
    server.wait_until(lambda: "ada" in listed(server))
    assert listed(server)["ada"]["tokens"] == 202


def test_another_conversation_leaves_the_end_of_a_session(
    start_server: StartServer, wide_model: Path, tmp_path: Path
) -> None:
    server = start_server(arguments(tmp_path / "memory"), model=wide_model)
    ada = tokens(1, 200)  # its last 8 tokens are no whole block
    complete(server, ada, "ada", id_slot=0)
    complete(server, [*ada, *tokens(2, 100)], "ben", id_slot=0)
    flush(server)
    server.wait_until(lambda: listed(server).keys() == {"ada", "ben"})
    assert server.post("/v1/atlas/memory/delete", {"context_id": "ben"}).status_code == 200
    assert complete(server, [*ada, 1], "ada", id_slot=1) == 200


class TestListing:
    def test_shows_tokens_bytes_layers_and_last_use(
        self, start_server: StartServer, wide_model: Path, tmp_path: Path
    ) -> None:
        server = start_server(arguments(tmp_path / "memory"), model=wide_model)
        complete(server, tokens(1, 200), "ada")
        complete(server, tokens(2, 40), "ben", atlas={"session_id": "ben", "memory_layers": 1})
        flush(server)
        server.wait_until(lambda: listed(server).keys() == {"ada", "ben"})
        sessions = listed(server)
        assert sessions["ada"]["tokens"] == 200
        assert sessions["ada"]["layers"] == [1, 2]
        assert sessions["ada"]["ram_bytes"] >= 200 * WIDE_KV_BYTES
        assert sessions["ada"]["disk_bytes"] >= 200 * WIDE_KV_BYTES
        assert sessions["ben"]["layers"] == [1]
        assert sessions["ben"]["disk_bytes"] == 0
        assert not sessions["ada"]["pinned"]
        assert sessions["ada"]["last_used_at"]

    def test_survives_kill_9(self, start_server: StartServer, wide_model: Path, tmp_path: Path) -> None:
        server = start_server(arguments(tmp_path / "memory", ram=8 * MIB, disk=32 * MIB), model=wide_model)
        complete(server, tokens(1, 200), "ada")
        flush(server)
        server.wait_until(lambda: "ada" in listed(server))
        assert server.post("/v1/atlas/memory/pin", {"session_id": "ada"}).status_code == 200
        server.wait_until(lambda: listed(server)["ada"]["pinned"])
        server.kill()
        server.start()
        server.wait_until(lambda: memory(server)["sessions"] == 1)
        evict_all_others(server, 64)
        assert listed(server)["ada"]["pinned"]
        assert complete(server, [*tokens(1, 200), 1], "ada") == 200

    def test_expires(self, start_server: StartServer, wide_model: Path, tmp_path: Path) -> None:
        server = start_server(arguments(tmp_path / "memory", "--atlas-session-ttl", "1"), model=wide_model)
        complete(server, tokens(1, 40), "ada")
        server.wait_until(lambda: memory(server)["sessions"] == 0)
        server.wait_until(lambda: listed(server) == {})


class TestPinning:
    def test_pinned_bytes_are_shown_and_bounded(
        self, start_server: StartServer, wide_model: Path, tmp_path: Path
    ) -> None:
        server = start_server(arguments(tmp_path / "memory", ram=8 * MIB, disk=32 * MIB), model=wide_model)
        for number in range(4):
            complete(server, tokens(number, 200), f"chat-{number}")
        flush(server)
        for number in range(2):
            answer = server.post("/v1/atlas/memory/pin", {"session_id": f"chat-{number}"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["data"] == {"session_id": f"chat-{number}", "pinned": True}
        pinned = memory(server)["pinned"]
        assert 2 * 200 * WIDE_KV_BYTES <= pinned["bytes"] <= pinned["limit"] == 16 * MIB
        refused = server.post("/v1/atlas/memory/pin", {"session_id": "chat-2"})
        assert refused.status_code == 413
        assert "chat-2" in refused.json()["error"]["message"]
        for name in ("chat-0", "chat-1"):
            assert server.post("/v1/atlas/memory/unpin", {"session_id": name}).status_code == 200
        assert memory(server)["pinned"]["bytes"] == 0
        assert server.post("/v1/atlas/memory/pin", {"session_id": "chat-2"}).status_code == 200

    def test_what_grows_beyond_the_limit_is_shown(
        self, start_server: StartServer, wide_model: Path, tmp_path: Path
    ) -> None:
        server = start_server(arguments(tmp_path / "memory", ram=8 * MIB, disk=16 * MIB), model=wide_model)
        complete(server, tokens(1, 100), "ada")
        assert server.post("/v1/atlas/memory/pin", {"session_id": "ada"}).status_code == 200
        assert memory(server)["pinned"]["beyond"] == 0
        complete(server, tokens(1, 400), "ada")  # of 32 KiB each
        flush(server)
        pinned = memory(server)["pinned"]
        assert pinned["bytes"] <= pinned["limit"] == 8 * MIB
        assert pinned["beyond"] >= 400 * WIDE_KV_BYTES - 8 * MIB

    @pytest.mark.parametrize("route", ["pin", "unpin"])
    def test_unknown_session(self, server: Server, route: str) -> None:
        answer = server.post(f"/v1/atlas/memory/{route}", {"session_id": "nobody"})
        assert answer.status_code == 404
        assert "nobody" in answer.json()["error"]["message"]

    def test_outlives_other_sessions(
        self, start_server: StartServer, wide_model: Path, tmp_path: Path
    ) -> None:
        server = start_server(arguments(tmp_path / "memory", ram=8 * MIB, disk=32 * MIB), model=wide_model)
        complete(server, tokens(1, 200), "ada")
        assert server.post("/v1/atlas/memory/pin", {"session_id": "ada"}).status_code == 200
        for number in range(2, 20):  # 112 MiB
            complete(server, tokens(number, 200), f"chat-{number}")
        assert complete(server, [*tokens(1, 200), 1], "ada") == 200


class TestDeleting:
    def test_private_blocks_go_shared_ones_stay(
        self, start_server: StartServer, wide_model: Path, tmp_path: Path
    ) -> None:
        server = start_server(arguments(tmp_path / "memory"), model=wide_model)
        system = tokens(0, 4 * BLOCK)
        ada, ben = system + tokens(1, 100), system + tokens(2, 100)
        complete(server, ada, "ada", id_slot=0)
        complete(server, ben, "ben", id_slot=0)
        flush(server)
        server.wait_until(lambda: listed(server).keys() == {"ada", "ben"})
        deleted = server.post("/v1/atlas/memory/delete", {"context_id": "ada"})
        assert deleted.status_code == 200, deleted.text
        assert deleted.json()["data"]["freed_bytes"] >= 100 * WIDE_KV_BYTES
        server.wait_until(lambda: listed(server).keys() == {"ben"})
        assert complete(server, [*ada, 1], None, id_slot=1) == len(system)
        assert complete(server, [*ben, 1], "ben", id_slot=2) == len(ben)
        assert server.post("/v1/atlas/memory/delete", {"context_id": "ada"}).status_code == 404

    def test_removes_the_saved_state_as_well(
        self, start_server: StartServer, wide_model: Path, tmp_path: Path
    ) -> None:
        server = start_server(arguments(tmp_path / "memory"), model=wide_model)
        assert (
            server.post("/v1/atlas/memory/save", {"context_id": "ada", "state": {"a": 1}}).status_code == 200
        )
        complete(server, tokens(1, 100), "ada")
        server.wait_until(lambda: "ada" in listed(server))
        assert server.post("/v1/atlas/memory/delete", {"context_id": "ada"}).status_code == 200
        assert server.post("/v1/atlas/memory/load", {"context_id": "ada"}).status_code == 404
        assert listed(server) == {}
        server.wait_until(lambda: not list(tmp_path.glob("memory/blocks/*/*/*.kv")))


class TestSlotChoice:
    def test_a_session_returns_to_its_slot(
        self, start_server: StartServer, wide_model: Path, tmp_path: Path
    ) -> None:
        server = start_server(arguments(tmp_path / "memory"), model=wide_model)
        for number in range(SLOTS):
            complete(server, tokens(number, 300), f"chat-{number}")
        for number in (2, 0, 3, 1):
            assert complete(server, tokens(number, 300) + tokens(50 + number, 20), f"chat-{number}") == 300
        assert memory(server)["results"]["restored"] == 0

    def test_an_empty_slot_is_taken_before_one_that_shares_a_beginning(
        self, start_server: StartServer, wide_model: Path, tmp_path: Path
    ) -> None:
        server = start_server(arguments(tmp_path / "memory"), model=wide_model)
        system = tokens(0, 8 * BLOCK)
        ada = system + tokens(1, 400)
        complete(server, ada, "ada")
        # Stock would take the slot of the first, whose beginning this one shares, and lose the rest of it.
        assert complete(server, system + tokens(2, 100), "ben") == len(system)
        assert complete(server, [*ada, 1], "ada") == len(ada)
        results = memory(server)["results"]
        assert results["restored"] == 1
