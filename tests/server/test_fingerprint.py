"""Whether state is kept for the same model and settings only, and for as long as these stay the same."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
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
from tests.server.harness import MODEL, Server
from tests.server.keys import ADA, ADMIN, BEN, with_key
from tests.server.preloading import HeldReads

MIB = 1 << 20

# Of each kind of override a value that changes nothing, and another.
OVERRIDES = {
    "int": ("general.quantization_version=int:2", "general.quantization_version=int:3"),
    "float": ("llama.rope.freq_base=float:100000", "llama.rope.freq_base=float:100000.5"),
    "bool": ("tokenizer.ggml.add_bos_token=bool:true", "tokenizer.ggml.add_bos_token=bool:false"),
    "str": ("general.name=str:x", "general.name=str:y"),
}


def padded_model(path: Path, n_bytes: int) -> Path:
    """The demo model with zeros behind it, which llama.cpp does not look at."""
    path.write_bytes(MODEL.read_bytes())
    os.truncate(path, n_bytes)
    return path


def flip(path: Path, at: int) -> None:
    """Change the lowest bit of one byte."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def root_with(start_server: StartServer, tmp_path: Path, *options: str) -> str:
    """The root of a server with these options, which then ends."""
    server = start_server([*memory_options(tmp_path), *options])
    root: str = memory_status(server)["root"]
    server.kill()
    return root


class TestOverrides:
    @pytest.mark.parametrize("kind", OVERRIDES)
    def test_count_by_their_value(self, start_server: StartServer, tmp_path: Path, kind: str) -> None:
        value, other = OVERRIDES[kind]
        server = start_server([*memory_options(tmp_path), "--override-kv", value])
        told = Conversation(0)
        first, root = told.ask(server), memory_status(server)["root"]
        for _ in range(2):
            flush(server)
            kill_and_start(server)
            assert memory_status(server)["root"] == root
            assert chat(server, told.asking(ASK_CITY)).recalls(first)
        server.kill()
        assert root_with(start_server, tmp_path, "--override-kv", other) != root

    def test_count_in_any_order(self, start_server: StartServer, tmp_path: Path) -> None:
        values = [value for value, _ in OVERRIDES.values()]
        roots = {
            root_with(start_server, tmp_path, "--override-kv", ",".join(order))
            for order in (values, values[::-1])
        }
        assert len(roots) == 1

    def test_the_first_of_a_key_counts(self, start_server: StartServer, tmp_path: Path) -> None:
        first, second = OVERRIDES["int"]
        one, both, reverse = (
            root_with(start_server, tmp_path, "--override-kv", values)
            for values in (first, f"{first},{second}", f"{second},{first}")
        )
        assert one == both
        assert reverse != both


class TestModelFile:
    def test_every_byte_counts(self, start_server: StartServer, tmp_path: Path) -> None:
        model = padded_model(tmp_path / "model.gguf", 16 * MIB)
        server = start_server(memory_options(tmp_path), model=model)
        told = Conversation(1)
        first, root = told.ask(server), memory_status(server)["root"]
        for at in (2 * MIB, 3 * MIB + 12344, 9 * MIB + 77777, 16 * MIB - 1):
            server.stop()
            flip(model, at)
            server.start()
            answer = chat(server, told.asking(ASK_CITY), atlas={})
            assert (answer.reused, answer.reason) == (0, "no_match")
            assert memory_status(server)["root"] != root
            server.stop()
            flip(model, at)
            server.start()
            assert memory_status(server)["root"] == root
            assert chat(server, told.asking(ASK_CITY)).recalls(first)

    def test_is_hashed_once(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(memory_options(tmp_path))
        root, known = memory_status(server)["root"], tmp_path / "memory" / "model-hashes"
        lines = known.read_text(encoding="ascii")
        assert lines.count("xxh3-128") == 1
        kill_and_start(server)
        assert memory_status(server)["root"] == root
        assert known.read_text(encoding="ascii") == lines
        server.kill()
        known.write_text(lines.replace("xxh3-128 ", "xxh3-128 1"), encoding="ascii")
        server.start()
        assert memory_status(server)["root"] == root

    def test_is_changed_while_the_server_sleeps(self, start_server: StartServer, tmp_path: Path) -> None:
        model = padded_model(tmp_path / "model.gguf", 5 * MIB)
        server = start_server([*memory_options(tmp_path), "--sleep-idle-seconds", "1"], model=model)
        told = Conversation(2)
        first, root = told.ask(server), memory_status(server)["root"]

        def sleep(n_times: int) -> None:
            server.wait_until(lambda: server.log.count("server is entering sleeping state") == n_times)

        sleep(1)
        assert chat(server, told.asking(ASK_CITY)).recalls(first)
        assert memory_status(server)["root"] == root
        sleep(2)
        flip(model, 2 * MIB)
        answer = chat(server, told.asking(ASK_CITY))
        assert answer.reused == 0
        assert answer.text == cold_chat(server, told.asking(ASK_CITY)).text
        assert memory_status(server)["root"] != root


class TestBigModel:
    """Hashing a file takes longer than loading it."""

    @pytest.fixture
    def held_reads(self, tmp_path: Path) -> Iterator[dict[str, str]]:
        """Environment of a server that cannot hash a model to its end before the file `released` is there."""
        held = HeldReads(tmp_path)
        yield held.environment
        held.release()

    def start(
        self, start_server: StartServer, tmp_path: Path, held_reads: dict[str, str], *options: str | Path
    ) -> Server:
        model = padded_model(tmp_path / "models" / "model.gguf", 80 * MIB)
        return start_server([*memory_options(tmp_path), *options], held_reads, model=model)

    @staticmethod
    def status(server: Server) -> Any:
        return server.get("/v1/atlas/status").json()

    def test_what_was_computed_meanwhile_is_kept(
        self, start_server: StartServer, tmp_path: Path, held_reads: dict[str, str]
    ) -> None:
        server = self.start(start_server, tmp_path, held_reads)
        told = [Conversation(number) for number in range(4)]  # with two slots
        firsts = [each.ask(server, atlas={"session_id": each.name}) for each in told]
        for each, first in zip(told, firsts, strict=True):
            answer = chat(server, each.asking(ASK_CITY), atlas={})
            assert answer.recalls(first)
        status = self.status(server)
        hashing = status["data"]["memory"]["hashing"]
        assert status["data"]["memory"]["root"] is None
        assert (hashing["total"], hashing["problem"]) == (80 * MIB, None)
        assert 0 < hashing["bytes"] < hashing["total"]
        assert status["status"] == "healthy"
        assert any("in RAM only" in notice for notice in status["notices"])
        refused = server.post("/v1/atlas/memory/flush", {"timeout_s": 0.1})
        assert refused.status_code == 500
        assert "hashed" in refused.json()["error"]["message"]
        assert block_files(tmp_path / "memory") == []
        (tmp_path / "released").touch()
        flush(server)
        status = self.status(server)
        assert (status["data"]["memory"]["hashing"], status["notices"]) == (None, [])
        assert status["data"]["memory"]["root"]
        for each, first in zip(told, firsts, strict=True):
            assert chat(server, each.asking(ASK_CITY)).recalls(first)
        kill_and_start(server)
        for each, first in zip(told, firsts, strict=True):
            assert chat(server, each.asking(ASK_CITY)).recalls(first)

    def test_each_key_keeps_its_own(
        self, start_server: StartServer, tmp_path: Path, held_reads: dict[str, str]
    ) -> None:
        server = self.start(
            start_server, tmp_path, held_reads, "--api-key", f"{ADA},{BEN}", "--atlas-admin-key", ADMIN
        )
        ada, ben = with_key(server, ADA), with_key(server, BEN)
        told = [Conversation(number) for number in range(4)]
        firsts = [each.ask(ada) for each in told]
        (tmp_path / "released").touch()
        flush(with_key(server, ADMIN))
        server.kill()
        server.start()
        wait_for_memory(with_key(server, ADMIN))
        for each, first in zip(told, firsts, strict=True):
            assert chat(ada, each.asking(ASK_CITY)).recalls(first)
            assert not chat(ben, each.asking(ASK_CITY)).recalls(first)

    def test_the_end_does_not_wait(
        self, start_server: StartServer, tmp_path: Path, held_reads: dict[str, str]
    ) -> None:
        server = self.start(start_server, tmp_path, held_reads)
        Conversation(0).ask(server)
        assert server.stop() == 0
        assert server.logged("What is in RAM is lost")

    def test_a_file_that_changes_meanwhile_has_no_hash(
        self, start_server: StartServer, tmp_path: Path, held_reads: dict[str, str]
    ) -> None:
        server = self.start(start_server, tmp_path, held_reads)
        first = Conversation(0).ask(server)
        flip(tmp_path / "models" / "model.gguf", 79 * MIB)
        (tmp_path / "released").touch()
        server.wait_until(lambda: memory_status(server)["hashing"]["problem"])
        status = self.status(server)
        assert status["data"]["memory"]["root"] is None
        assert any("changed or replaced" in notice for notice in status["notices"])
        assert server.post("/v1/atlas/memory/flush", {"timeout_s": 30}).status_code == 500
        assert chat(server, Conversation(0).asking(ASK_CITY)).reused > first.prompt // 2
        assert block_files(tmp_path / "memory") == []
