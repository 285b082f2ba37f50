"""What upstream puts into a slot is kept if it is proven, what it moves is not, and the slot recovers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.conversations import NO_PRELOADING, ONE_THREAD, flush, memory_status, tokenize
from tests.server.harness import BINARY, STOCK_BINARY, Server
from tests.server.test_slot_files import save

SYSTEM = "My name is Ada and I like blue parrots. " * 20
BLOCK_TOKENS = 64
Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Starts a server of one slot, whose memory has a name; all use the same directory of slot files."""
    running: list[Server] = []
    slots = tmp_path / "slots"
    slots.mkdir()

    def make(memory: str, *options: str, binary: Path = BINARY) -> Server:
        arguments: list[str | Path] = [*ONE_THREAD, "-np", "1", "-c", "2048", "--slot-save-path", slots]
        if binary == BINARY:
            arguments += ["--atlas-memory-path", tmp_path / memory, *NO_PRELOADING]
            arguments += ["--atlas-block-tokens", str(BLOCK_TOKENS)]
        running.append(Server([*arguments, *options], directory=tmp_path, binary=binary).start())
        return running[-1]

    yield make
    for server in running:
        server.kill()


def ask(server: Server, prompt: str, **fields: Any) -> int:
    """How many tokens of the prompt were reused."""
    body = {"prompt": prompt, "n_predict": 4, "temperature": 0} | fields
    answer = server.post("/completion", body)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    first = document[0] if isinstance(document, list) else document
    reused: int = first["timings"]["cache_n"]
    return reused


def after_restart(start: Start, server: Server, prompt: str, *options: str, memory: str = "memory") -> int:
    """How many tokens of the prompt are computed by a server that starts after `kill -9` of this one."""
    n_all = len(tokenize(server, prompt))
    flush(server)
    server.kill()
    return n_all - ask(start(memory, *options), prompt)


def restore(server: Server) -> int:
    """How many tokens the slot file put into the slot."""
    answer = server.post("/slots/0?action=restore", {"filename": "a"})
    assert answer.status_code == 200, answer.text
    restored: int = answer.json()["n_restored"]
    return restored


def notices(server: Server) -> str:
    """What the status says that somebody might miss."""
    return "\n".join(server.get("/v1/atlas/status").json()["notices"])


def hello(number: int) -> str:
    """A question that shares only the system prompt with others."""
    return SYSTEM + f"{number} hello bread " * 20


def n_tokens(server: Server, text: str) -> int:
    """Of a text."""
    return len(tokenize(server, text))


def test_what_a_file_of_ours_puts_in_is_kept(start: Start) -> None:
    writer = start("memory")
    ask(writer, hello(0))
    saved = save(writer, "a")["n_saved"]
    writer.kill()
    # another machine, to which only the slot file came
    reader = start("another")
    assert restore(reader) == saved
    flush(reader)
    assert memory_status(reader)["inexact_slots"] == 0
    reader.kill()
    again = start("another")
    assert ask(again, hello(0)) >= saved - 4 - 1
    # and what is computed behind it
    ask(again, hello(1))
    assert after_restart(start, again, hello(1), memory="another") == 1


def write_by_stock(start: Start) -> None:
    stock = start("", binary=STOCK_BINARY)
    ask(stock, hello(0))
    save(stock, "a")
    stock.kill()


def write_under_another_root(start: Start) -> None:
    writer = start("memory", "--rope-freq-scale", "0.5")
    ask(writer, hello(0))
    save(writer, "a")
    writer.kill()


def write_what_is_not_exact(start: Start) -> None:
    write_by_stock(start)
    writer = start("memory")
    restore(writer)
    ask(writer, hello(0))
    save(writer, "a")
    writer.kill()


@pytest.mark.parametrize("write", [write_by_stock, write_under_another_root, write_what_is_not_exact])
def test_what_is_not_proven_is_not_kept(start: Start, write: Callable[[Start], None]) -> None:
    write(start)
    server = start("another")
    restored = restore(server)
    assert ask(server, hello(0)) >= restored - 4 - 1  # it is reused, as in stock
    assert memory_status(server)["inexact_slots"] == 1
    assert "1 slot(s) compute is not kept" in notices(server)
    assert server.logged("slot 0: its state was not computed from the beginning as it is now")
    flush(server)
    assert memory_status(server)["disk"]["entries"] == 0
    # a prompt that goes on from before that
    other = "The city is called Paris. " * 30
    ask(server, other)
    assert memory_status(server)["inexact_slots"] == 0
    assert "not kept" not in notices(server)
    assert server.logged("slot 0: its state is kept again")
    assert after_restart(start, server, other, memory="another") == 1


def test_a_file_of_ours_is_for_stock_too(start: Start) -> None:
    writer = start("memory")
    ask(writer, hello(0))
    saved = save(writer, "a")["n_saved"]
    stock = start("", binary=STOCK_BINARY)
    assert restore(stock) == saved
    assert ask(stock, hello(0)) >= saved - 4 - 1


def test_computing_all_anew_makes_a_slot_exact(start: Start) -> None:
    write_by_stock(start)
    server = start("memory")
    restore(server)
    assert ask(server, hello(0), cache_prompt=False) == 0
    assert memory_status(server)["inexact_slots"] == 0
    ask(server, hello(0))
    assert after_restart(start, server, hello(0)) == 1


def test_what_cache_reuse_moved_is_left_out_alone(start: Start) -> None:
    reuse = ["--cache-reuse", "32"]
    server = start("memory", *reuse)
    moved = "The lucky number of my friend is seven. " * 20
    between = "You have told me so. " * 20
    ask(server, SYSTEM + between + moved)
    n_system, n_tokens_moved = n_tokens(server, SYSTEM), n_tokens(server, moved)
    assert ask(server, SYSTEM + moved) > n_system + 2 * BLOCK_TOKENS
    assert memory_status(server)["inexact_slots"] == 1
    for number in range(3):
        ask(server, hello(number))
        assert memory_status(server)["inexact_slots"] == 0
    flush(server)
    server.kill()
    again = start("memory")
    assert [ask(again, hello(number)) for number in range(3)] == [n_tokens(again, hello(0)) - 1] * 3
    assert after_restart(start, again, SYSTEM + moved) > n_tokens_moved - BLOCK_TOKENS


@pytest.mark.parametrize("kept", [0, -1])
def test_what_a_context_shift_moved_is_left_out_alone(start: Start, kept: int) -> None:
    options = ["--context-shift", "-c", "512"]
    server = start("memory", *options)
    prompt = "My name is Ada and I like blue parrots. " * 10
    ask(server, prompt, n_predict=600, n_keep=kept, ignore_eos=True)
    assert memory_status(server)["inexact_slots"] == 1
    question = prompt + "hello bread " * 20
    ask(server, question)
    assert memory_status(server)["inexact_slots"] == 0
    assert after_restart(start, server, question, *options) == 1


def test_a_further_choice_leaves_a_slot_that_is_kept(start: Start) -> None:
    server = start("memory", "-np", "2", "-kvu")
    ask(server, hello(0), n=2)
    assert memory_status(server)["inexact_slots"] == 0
    for slot in range(2):
        ask(server, hello(1 + slot), id_slot=slot)
    flush(server)
    server.kill()
    again = start("memory", "-np", "2", "-kvu")
    assert [ask(again, hello(1 + slot)) for slot in range(2)] == [n_tokens(again, hello(1)) - 1] * 2
