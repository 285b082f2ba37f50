"""Buffers that are there before somebody comes back, beside layer 1's budget."""

from pathlib import Path

from tests.server.conftest import StartServer
from tests.server.conversations import flush, kill_and_start, memory_options, memory_status
from tests.server.gguf_files import WIDE_KV_BYTES, WIDE_VOCABULARY, write_wide_model
from tests.server.harness import Server

BLOCK = 16
BLOCK_BYTES = BLOCK * WIDE_KV_BYTES
# Before anything is known of conversations.
FIRST = 8
RAM = 512 * BLOCK_BYTES
OPTIONS = ["-np", "1", "-c", "1024", "--atlas-block-tokens", str(BLOCK), "--atlas-l1-cache-size"]


def ready_blocks(server: Server) -> float:
    """For how many blocks there are buffers that nobody uses."""
    ready: float = memory_status(server)["ram"]["ready"] / BLOCK_BYTES
    return ready


def remember(server: Server, n_blocks: int) -> None:
    """Compute a conversation that is so long, and write it."""
    prompt = [token % WIDE_VOCABULARY for token in range(n_blocks * BLOCK)]
    server.post("/completion", {"prompt": prompt, "n_predict": 0}).raise_for_status()
    flush(server)


def test_the_longest_conversation_on_disk_finds_buffers(start_server: StartServer, tmp_path: Path) -> None:
    model = write_wide_model(tmp_path / "wide.gguf", 1024)
    server = start_server([*memory_options(tmp_path), *OPTIONS, str(RAM)], model=model)
    assert FIRST <= ready_blocks(server) < FIRST + 1
    remember(server, 3)
    remember(server, 20)
    kill_and_start(server)
    server.wait_until(lambda: ready_blocks(server) >= 20)
    assert ready_blocks(server) < 22


def test_no_more_are_kept_than_an_eighth_of_the_budget(start_server: StartServer, tmp_path: Path) -> None:
    model = write_wide_model(tmp_path / "wide.gguf", 1024)
    server = start_server([*memory_options(tmp_path), *OPTIONS, str(8 * 12 * BLOCK_BYTES + 8)], model=model)
    remember(server, 20)
    kill_and_start(server)
    server.wait_until(lambda: ready_blocks(server) >= 11)
    assert ready_blocks(server) <= 12
