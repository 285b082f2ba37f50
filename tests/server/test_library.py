"""State that the library keeps and llama-server finds, and the other way round."""

import os
import subprocess
from pathlib import Path

from tests.server.conftest import StartServer
from tests.server.harness import MODEL, REPOSITORY, Server

PROGRAM = REPOSITORY / "build/bin/atlas-api-test"
ARGUMENTS = ("--context-shift", "-np", "4", "--kv-unified", "-t", "1", "--atlas-block-tokens", "16")
# As the case says_how_much_it_reuses asks.
REQUEST = {
    "messages": [
        {"role": "user", "content": "".join(f"word {i} " for i in range(60))},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Go on."},
    ],
    "temperature": 0,
    "max_tokens": 8,
    "atlas": {"session_id": "anna"},
}


def reused_by_library(memory: Path) -> int:
    done = subprocess.run(
        [PROGRAM, "says_how_much_it_reuses", memory],
        env=os.environ | {"ATLAS_TEST_MODEL": str(MODEL)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return int(done.stdout.split()[-1])


def knows_the_disk(server: Server) -> bool:
    memory = server.get("/v1/atlas/status").json()["data"]["memory"]
    return memory["root"] is not None and memory["disk"]["index_complete"] is True


def reused_by_server(start_server: StartServer, memory: Path) -> int:
    server = start_server(ARGUMENTS, {"ATLAS_MEMORY_PATH": str(memory)})
    server.wait_until(lambda: knows_the_disk(server))
    answer = server.post("/v1/chat/completions", REQUEST)
    assert answer.status_code == 200, answer.text
    flushed = server.post("/v1/atlas/memory/flush")
    assert flushed.status_code == 200, flushed.text
    server.stop()
    reused: int = answer.json()["timings"]["cache_n"]
    return reused


def test_server_finds_what_library_kept(start_server: StartServer, tmp_path: Path) -> None:
    assert reused_by_library(tmp_path / "memory") == 0
    assert reused_by_server(start_server, tmp_path / "memory") > 0


def test_library_finds_what_server_kept(start_server: StartServer, tmp_path: Path) -> None:
    assert reused_by_server(start_server, tmp_path / "memory") == 0
    assert reused_by_library(tmp_path / "memory") > 0
