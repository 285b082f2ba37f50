"""The memory's files: what is written, flushing, damage and full budgets."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    ASK_NAME,
    ONE_THREAD,
    Conversation,
    block_files,
    chat,
    cold_chat,
    filler,
    flush,
    kill_and_start,
    memory_options,
    memory_status,
    tokenize,
)
from tests.server.harness import STOCK_BINARY, Server

BLOCK = 256

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Untouched upstream, to compare with."""
    with Server(ONE_THREAD, directory=tmp_path_factory.mktemp("cold"), binary=STOCK_BINARY) as running:
        yield running


@pytest.fixture
def remembering(start_server: StartServer, tmp_path: Path) -> Server:
    """A server with an empty memory."""
    return start_server(memory_options(tmp_path))


def written_bytes(server: Server) -> int:
    """Bytes written to disk so far, once all is written."""
    flush(server)
    n_bytes: int = memory_status(server)["written"]["bytes"]
    return n_bytes


class TestWhatIsWritten:
    def test_shared_system_prompt_is_stored_once(self, remembering: Server) -> None:
        system = filler(130)
        n_system = len(tokenize(remembering, system))
        assert n_system >= 4 * BLOCK
        first = Conversation(0, n_items=1, system=system).ask(remembering)
        flush(remembering)
        before = memory_status(remembering)
        others = [Conversation(number, n_items=1, system=system).ask(remembering) for number in range(1, 10)]
        flush(remembering)
        after = memory_status(remembering)
        # What is beyond the last block that is full of the system prompt belongs to each conversation.
        n_new = sum(answer.total - n_system // BLOCK * BLOCK for answer in others)
        for key in ("ram", "disk", "written"):
            new_bytes = after[key]["bytes"] - before[key]["bytes"]
            assert new_bytes <= 1.1 * n_new * before[key]["bytes"] / first.total

    def test_longer_conversation_writes_what_is_new(self, remembering: Server) -> None:
        told = Conversation(0, n_items=56)
        first = told.ask(remembering)
        bytes_per_token = written_bytes(remembering) / first.total
        assert first.total % BLOCK < 100, "the tail is written again as part of a block, and should be short"
        told.messages += [
            {"role": "user", "content": filler(70)},
            {"role": "assistant", "content": "Thank you."},
        ]
        before = written_bytes(remembering)
        second = told.ask(remembering)
        n_new = second.total - first.total
        assert n_new >= 600
        assert written_bytes(remembering) - before <= 1.2 * n_new * bytes_per_token

    def test_budgets_hold_at_every_moment(self, start_server: StartServer, tmp_path: Path) -> None:
        ram, disk = 3_000_000, 5_000_000
        budgets = ["--atlas-l1-cache-size", str(ram), "--atlas-l2-cache-size", str(disk)]
        server = start_server([*memory_options(tmp_path), *budgets])
        done = threading.Event()
        samples: list[tuple[int, int, int]] = []

        def sample() -> None:
            while not done.is_set():
                status = memory_status(server)
                samples.append((status["ram"]["bytes"], status["disk"]["bytes"], size_on_disk(tmp_path)))

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            for number in range(16):
                Conversation(number).ask(server)
            flush(server)
        finally:
            done.set()
            sampler.join()
        assert len(samples) > 1
        assert [each for each in samples if each[0] > ram or max(each[1:]) > disk] == []
        status = memory_status(server)
        assert status["ram"]["evicted"] > 0
        assert status["disk"]["evicted"] > 0
        assert status["disk"]["bytes"] > disk / 2


def size_on_disk(directory: Path) -> int:
    """Bytes of all files of state, finished or being written, at about one moment."""
    size = 0
    for path in [*directory.glob("memory/tmp/*"), *directory.rglob("*.kv")]:
        try:
            size += path.stat().st_size
        except FileNotFoundError:  # renamed or removed after it was listed
            continue
    return size


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def exchange(path: Path) -> None:
    """The whole and sound file of another entry, under this one's name."""
    other = next(each for each in block_files(path.parents[2]) if each != path)
    shutil.copy(other, path)


class TestDamagedFiles:
    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param(truncate, id="truncated"),
            pytest.param(lambda path: flip_byte(path, 24), id="header"),
            pytest.param(lambda path: flip_byte(path, 60), id="key"),
            pytest.param(lambda path: flip_byte(path, 112), id="token"),
            pytest.param(lambda path: flip_byte(path, -1), id="data"),
            pytest.param(exchange, id="exchanged"),
        ],
    )
    def test_is_counted_and_replaced(
        self, remembering: Server, tmp_path: Path, cold: Server, damage: Damage
    ) -> None:
        told = Conversation(1, n_items=60)
        first = chat(remembering, told.asking(ASK_NAME))
        flush(remembering)
        remembering.kill()
        damage(block_files(tmp_path)[-1])
        kill_and_start(remembering)
        answer = chat(remembering, told.asking(ASK_NAME))
        assert answer.text == cold_chat(cold, told.asking(ASK_NAME)).text
        assert not answer.recalls(first)
        assert memory_status(remembering)["damaged_files"] == 1
        flush(remembering)
        kill_and_start(remembering)
        assert chat(remembering, told.asking(ASK_NAME)).recalls(first)
        assert memory_status(remembering)["damaged_files"] == 0

    @pytest.mark.parametrize("content", [b"", b"not ours\n" * 100], ids=["empty", "other"])
    def test_foreign_content_is_not_believed(
        self, remembering: Server, tmp_path: Path, cold: Server, content: bytes
    ) -> None:
        told = Conversation(2)
        chat(remembering, told.asking(ASK_NAME))
        flush(remembering)
        remembering.kill()
        files = block_files(tmp_path)
        for path in files:
            path.write_bytes(content)
        kill_and_start(remembering)
        assert memory_status(remembering)["foreign_files"] == len(files)
        answer = chat(remembering, told.asking(ASK_NAME))
        assert answer.reused == 0
        assert answer.text == cold_chat(cold, told.asking(ASK_NAME)).text

    def test_files_of_others_stay_and_leftovers_go(self, remembering: Server, tmp_path: Path) -> None:
        told = Conversation(3)
        first = told.ask(remembering)
        flush(remembering)
        remembering.kill()
        memory = tmp_path / "memory"
        foreign = [
            memory / "tmp/notes.txt",
            block_files(memory)[0].with_name("notes.txt"),
            block_files(memory)[0].with_name("notes.kv"),
        ]
        leftover = memory / "tmp/atlas-abc123.tmp"
        for path in [*foreign, leftover]:
            path.write_bytes(b"left here")
        kill_and_start(remembering)
        assert told.ask(remembering, ASK_CITY).recalls(first)
        assert [path.exists() for path in foreign] == [True] * len(foreign)
        assert not leftover.exists()
        assert memory_status(remembering)["foreign_files"] == 2


class TestFlush:
    def test_reply(self, remembering: Server) -> None:
        Conversation(4).ask(remembering)
        answer = remembering.post("/v1/atlas/memory/flush").json()
        assert answer["status"] == "success"
        assert answer["data"].keys() == {"entries", "bytes"}
        status = memory_status(remembering)
        assert status["pending"] == {"entries": 0, "bytes": 0}
        assert status["disk"]["entries"] == status["ram"]["entries"] > 0

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b'{"timeout_s": 0}', "timeout_s"),
            (b'{"timeout_s": 3601}', "timeout_s"),
            (b'{"timeout_s": "30"}', "timeout_s"),
            (b'{"timeout_s": true}', "timeout_s"),
            (b'{"timeout": 30}', "timeout_s"),
            (b"[]", "must be a JSON object"),
            (b"{", "must be a JSON object"),
        ],
    )
    def test_bad_input(self, remembering: Server, body: bytes, message: str) -> None:
        answer = remembering.client.post("/v1/atlas/memory/flush", content=body)
        assert answer.status_code == 400
        assert message in answer.json()["error"]["message"]

    def test_path_below_a_file(self, start_server: StartServer, tmp_path: Path, cold: Server) -> None:
        (tmp_path / "file").touch()
        server = start_server([*ONE_THREAD, "--atlas-memory-path", tmp_path / "file/memory"])
        self.check_unusable_disk(server, cold)

    def test_directory_turns_into_a_file(self, remembering: Server, tmp_path: Path, cold: Server) -> None:
        Conversation(5).ask(remembering)
        flush(remembering)
        shutil.rmtree(tmp_path / "memory")
        (tmp_path / "memory").touch()
        self.check_unusable_disk(remembering, cold)

    def test_path_that_comes_back(self, remembering: Server, tmp_path: Path) -> None:
        told = Conversation(7)
        first = told.ask(remembering)
        flush(remembering)
        assert memory_status(remembering)["disk"]["retry_s"] is None
        (tmp_path / "memory").rename(tmp_path / "away")
        (tmp_path / "memory").touch()
        Conversation(8).ask(remembering)
        remembering.wait_until(lambda: memory_status(remembering)["disk"]["problem"])
        assert memory_status(remembering)["disk"]["retry_s"] >= 0
        (tmp_path / "link").symlink_to(tmp_path / "away")
        (tmp_path / "link").rename(tmp_path / "memory")  # in one step, between which nobody can make another
        remembering.wait_until(lambda: memory_status(remembering)["disk"]["problem"] is None)
        flush(remembering)
        kill_and_start(remembering)
        assert told.ask(remembering, ASK_CITY).recalls(first)

    @staticmethod
    def check_unusable_disk(server: Server, cold: Server) -> None:
        told = Conversation(6)
        told.ask(server)
        answer = server.post("/v1/atlas/memory/flush", {"timeout_s": 30})
        assert answer.status_code == 500
        problem = memory_status(server)["disk"]["problem"]
        assert problem
        assert problem in answer.json()["error"]["message"]
        second = told.ask(server, ASK_CITY)
        assert second.reused > 0
        assert second.text == cold_chat(cold, told.messages[:-1]).text
