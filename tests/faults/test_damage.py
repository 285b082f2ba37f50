"""Files that were changed behind the server's back, at any place: no wrong answer comes of it."""

import hashlib
import random
import shutil
import struct
from pathlib import Path

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_NAME,
    Conversation,
    block_files,
    chat,
    cold_chat,
    flush,
    kill_and_start,
    memory_options,
    memory_status,
    wait_for_memory,
)
from tests.server.harness import Server

CONVERSATIONS = 6
ROUNDS_PER_SEED = 4
AT_VERSION = 8
SMALL_BLOCKS = ["--atlas-block-tokens", "16"]


# XXH3 of no data, and of the header of the file below before it.
SUM_OF_NOTHING, SUM_OF_HEADER = bytes.fromhex("c294d3380580062d"), bytes.fromhex("a56492cf26a283d6")


def questions_and_answers(cold: Server) -> list[tuple[Conversation, str]]:
    told = [Conversation(number) for number in range(CONVERSATIONS)]
    return [(one, cold_chat(cold, one.asking(ASK_NAME)).text) for one in told]


def damage(path: Path, chooser: random.Random) -> None:
    """A flipped bit, a lost end, a lost page, or garbage in the place of one."""
    content = bytearray(path.read_bytes())
    if not content:
        return
    at = chooser.randrange(len(content))
    match chooser.randrange(4):
        case 0:
            content[at] ^= 1 << chooser.randrange(8)
        case 1:
            del content[at:]
        case 2:
            content[at : at + 4096] = bytes(len(content[at : at + 4096]))
        case _:
            content[at : at + 4096] = chooser.randbytes(len(content[at : at + 4096]))
    path.write_bytes(content)


def test_any_damage(start_server: StartServer, tmp_path: Path, cold: Server, seed: int) -> None:
    chooser = random.Random(seed)
    expected = questions_and_answers(cold)
    server = start_server([*memory_options(tmp_path), *SMALL_BLOCKS])
    for _ in range(ROUNDS_PER_SEED):
        for number, (told, _text) in enumerate(expected):
            chat(server, told.asking(ASK_NAME), atlas={"session_id": f"{number}"})
            body = {"context_id": f"{number}", "state": {"number": number}}
            assert server.post("/v1/atlas/memory/save", body).status_code in (200, 500)
        flush(server)
        server.kill()
        for path in sorted(path for path in (tmp_path / "memory").rglob("*") if path.is_file()):
            if chooser.random() < 0.3 or path.suffix != ".kv":
                damage(path, chooser)
        kill_and_start(server)
        for number, (told, text) in enumerate(expected):
            assert chat(server, told.asking(ASK_NAME)).text == text
            loaded = server.post("/v1/atlas/memory/load", {"context_id": f"{number}"})
            assert "(reference" not in loaded.text
            if loaded.status_code == 200:
                assert loaded.json()["data"]["state"].get("number", number) == number
            else:
                assert loaded.status_code in (404, 500), loaded.text
        server.kill()
        shutil.rmtree(tmp_path / "memory")
        server.start()


def test_files_of_a_later_version(start_server: StartServer, tmp_path: Path, cold: Server) -> None:
    [(told, text), *_] = questions_and_answers(cold)
    server = start_server(memory_options(tmp_path))
    chat(server, told.asking(ASK_NAME))
    flush(server)
    server.kill()
    later = {}
    for path in block_files(tmp_path):
        content = bytearray(path.read_bytes())
        content[AT_VERSION] += 1
        path.write_bytes(content)
        later[path] = bytes(content)
    server.start()
    wait_for_memory(server)
    assert memory_status(server)["foreign_files"] == len(later) > 0
    assert {path: path.read_bytes() for path in later} == later, "they are whose version knows them"
    answer = chat(server, told.asking(ASK_NAME))
    assert (answer.text, answer.reused) == (text, 0)


def test_block_of_no_tokens(start_server: StartServer, tmp_path: Path) -> None:
    """A file that is as it was written, of an entry that there cannot be."""
    parent = "ab" * 32
    key = hashlib.sha256(b"\0" + parent.encode()).hexdigest()
    header = b"ATLASKV\0" + struct.pack("<IIIIQQ", 1, 120, 0, 0, 0, 0) + SUM_OF_NOTHING
    header += bytes.fromhex(key) + bytes.fromhex(parent)
    path = tmp_path / f"memory/blocks/{key[:2]}/{key[2:4]}/{key}.kv"
    path.parent.mkdir(parents=True)
    path.write_bytes(header + SUM_OF_HEADER)
    server = start_server(memory_options(tmp_path))
    wait_for_memory(server)
    status = memory_status(server)
    assert (status["damaged_files"], status["disk"]["entries"]) == (1, 0)
    assert not path.exists()
