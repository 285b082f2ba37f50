"""SIGTERM at any moment while state is saved and restored: a clean end, and all is there afterwards."""

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tests.server.conformance import data_of, operate
from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_NAME,
    Conversation,
    chat,
    cold_chat,
    flush,
    memory_options,
    memory_status,
    wait_for_memory,
)
from tests.server.harness import Server

CONVERSATIONS = 12
ROUNDS_PER_SEED = 5
LONGEST_S = 0.4
# No room in RAM for two of them, so that each is restored from disk.
NO_RAM = ["--atlas-l1-cache-size", "1000000"]
# As with stock, a client that waits for its answer holds up the end, here for no longer than that.
SOON = ["--atlas-shutdown-timeout", "1"]


class Clients:
    """One asks conversations, which are restored, and one saves contexts, until the server refuses."""

    def __init__(self, server: Server, seed: int, expected: dict[int, str]) -> None:
        self._server = server
        self._chooser = random.Random(seed)
        self._expected = expected
        self.saved: dict[str, dict[str, Any]] = {}

    def ask(self) -> None:
        try:
            while True:
                number = self._chooser.randrange(CONVERSATIONS)
                answer = self._server.post(
                    "/v1/chat/completions",
                    {"messages": Conversation(number).asking(ASK_NAME), "temperature": 0, "max_tokens": 16},
                )
                if answer.status_code == 503:
                    return
                assert answer.status_code == 200, answer.text
                text = answer.json()["choices"][0]["message"]["content"]
                assert text == self._expected[number]
        except httpx.TransportError:
            pass

    def save(self) -> None:
        try:
            while True:
                number = len(self.saved)
                state = {"number": number, "text": "x" * (number * 7919 % 50_000)}
                answer = operate(self._server, "save", {"context_id": f"{number}", "state": state})
                if answer.status_code == 503:
                    return
                assert answer.status_code == 200, answer.text
                self.saved[f"{number}"] = state
        except httpx.TransportError:
            pass


def test_sigterm_while_saving_and_restoring(
    start_server: StartServer, tmp_path: Path, cold: Server, seed: int
) -> None:
    chooser = random.Random(seed)
    expected = {
        number: cold_chat(cold, Conversation(number).asking(ASK_NAME)).text for number in range(CONVERSATIONS)
    }
    server = start_server([*memory_options(tmp_path), *NO_RAM, *SOON, "--no-warmup"])
    for number in range(CONVERSATIONS):
        chat(server, Conversation(number).asking(ASK_NAME))
    flush(server)
    clients = Clients(server, seed, expected)
    for _ in range(ROUNDS_PER_SEED):
        with ThreadPoolExecutor(2) as threads:
            running = [threads.submit(clients.ask), threads.submit(clients.save)]
            time.sleep(chooser.uniform(0, LONGEST_S))
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
        for each in running:
            each.result()
        assert not list((tmp_path / "memory/tmp").iterdir())
        server.start()
        for name, state in list(clients.saved.items())[-5:]:
            assert data_of(operate(server, "load", {"context_id": name}))["state"] == state
    wait_for_memory(server)
    for number, text in expected.items():
        answer = chat(server, Conversation(number).asking(ASK_NAME), atlas={})
        assert answer.text == text
        assert answer.reused >= 0.9 * answer.prompt
    status = memory_status(server)
    assert (status["disk"]["problem"], status["damaged_files"], status["foreign_files"]) == (None, 0, 0)
