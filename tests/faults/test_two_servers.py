"""Two servers on one memory path, both under load, one of them killed: answers are right, nothing is lost."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.server.conformance import data_of, operate
from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_NAME,
    Conversation,
    chat,
    cold_chat,
    filler,
    flush,
    memory_options,
    memory_status,
    wait_for_memory,
)
from tests.server.harness import Server

CLIENTS, TURNS, CONVERSATIONS = 2, 8, 12
KILLS = 3
SMALL = ["--atlas-block-tokens", "16", "--atlas-l1-cache-size", "400000", "--atlas-l2-cache-size", "4000000"]


def work(server: Server, seed: int) -> list[tuple[int, str]]:
    """Conversations that both servers have, contexts of its own, one that all write; what was answered."""
    chooser = random.Random(seed)
    answers: list[tuple[int, str]] = []
    for turn in range(TURNS):
        number = chooser.randrange(CONVERSATIONS)
        answers.append((number, chat(server, Conversation(number).asking(ASK_NAME)).text))
        for name in (f"of-{seed}-{turn}", "shared"):
            saved = operate(server, "save", {"context_id": name, "state": {"seed": seed, "turn": turn}})
            assert saved.status_code == 200, saved.text
    flush(server)
    return answers


def test_one_memory_path(start_server: StartServer, tmp_path: Path, cold: Server) -> None:
    expected = {
        number: cold_chat(cold, Conversation(number).asking(ASK_NAME)).text for number in range(CONVERSATIONS)
    }
    servers = [start_server([*memory_options(tmp_path), *SMALL]) for _ in range(2)]
    for round_ in range(KILLS):
        seeds = range(round_ * 2 * CLIENTS, (round_ + 1) * 2 * CLIENTS)
        with ThreadPoolExecutor(2 * CLIENTS) as threads:
            for answers in threads.map(work, servers * CLIENTS, seeds):
                assert answers == [(number, expected[number]) for number, _ in answers]
        killed, other = servers[round_ % 2], servers[1 - round_ % 2]
        killed.kill()
        for seed in seeds:
            for turn in range(TURNS):
                loaded = data_of(operate(other, "load", {"context_id": f"of-{seed}-{turn}"}))
                assert loaded["state"] == {"seed": seed, "turn": turn}
        killed.start()
    for server in servers:
        status = memory_status(server)
        assert (status["disk"]["problem"], status["damaged_files"], status["foreign_files"]) == (None, 0, 0)


def test_what_one_wrote_the_other_finds_when_it_starts(start_server: StartServer, tmp_path: Path) -> None:
    told = Conversation(1)
    writing = start_server(memory_options(tmp_path))
    first = told.ask(writing)
    flush(writing)
    reading = start_server(memory_options(tmp_path))
    wait_for_memory(reading)
    answer = told.ask(reading, atlas={})
    assert answer.recalls(first)
    assert answer.layer == 1


def session_bytes(server: Server) -> int:
    [listed] = data_of(operate(server, "list", {}))["contexts"]
    size: int = listed["session"]["disk_bytes"]
    return size


def test_a_session_with_two_models(start_server: StartServer, tmp_path: Path) -> None:
    """The same name on servers that cannot use each other's state: what one does leaves the other's alone."""
    atlas = {"session_id": "ada", "history": "server"}
    message = {"role": "user", "content": "My name is Ada."}
    large = start_server(memory_options(tmp_path))
    small = start_server([*memory_options(tmp_path), "-ctk", "q8_0"])
    chat(large, [{**message, "content": f"My name is Ada. {filler(100)}"}], atlas={"session_id": "ada"})
    flush(large)
    before = session_bytes(large)
    chat(small, [message], atlas={"session_id": "ada"})
    flush(small)
    assert 0 < session_bytes(small) < before
    answer = chat(small, [{"role": "user", "content": ASK_NAME}], atlas=atlas)
    assert "Ada" in answer.text, "what was said belongs to the session, whatever the model"
    for server in (large, small):
        server.stop()
    large.start()
    wait_for_memory(large)
    assert session_bytes(large) >= before
