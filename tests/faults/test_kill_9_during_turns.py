"""Turns with `history: server`: what was answered is recorded, whenever the server is killed."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.server.conformance import data_of, operate
from tests.server.conftest import StartServer
from tests.server.conversations import memory_options
from tests.server.harness import Server

SESSIONS = 3
KILLS_PER_SEED = 10
LONGEST_S = 0.6


class Speaker:
    """Says one numbered sentence after the other until the connection breaks."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.begun = 0
        self.exchanges: list[str] = []
        """What was said and answered, in turn."""

    def run(self, server: Server) -> None:
        try:
            while True:
                self._speak(server)
        except httpx.TransportError:
            pass

    def _speak(self, server: Server) -> None:
        self.begun += 1
        message = {"role": "user", "content": f"Sentence {self.begun}."}
        kept = {"session_id": self.session, "history": "server"}
        answer = server.post(
            "/v1/chat/completions",
            {"messages": [message], "max_tokens": 2, "ignore_eos": True, "seed": 1, "atlas": kept},
        )
        if answer.status_code == 400:  # it does not fit into the context any more
            assert operate(server, "delete", {"context_id": self.session}).status_code == 200
            self.exchanges = []
            return
        assert answer.status_code == 200, answer.text
        if not answer.json()["atlas"]["degraded"]:
            text = answer.json()["choices"][0]["message"]["content"]
            self.exchanges += [message["content"], text]

    def check(self, server: Server) -> None:
        """The record has all that was answered; the exchange that the kill cut off, whole or not at all."""
        loaded = operate(server, "load", {"context_id": self.session})
        if loaded.status_code == 404:
            assert self.exchanges == []
            return
        messages = data_of(loaded)["session"]["conversation_history"]
        recorded = [message["content"] for message in messages]
        n_answered = len(self.exchanges)
        assert recorded[:n_answered] == self.exchanges
        assert recorded[n_answered : n_answered + 1] in ([], [f"Sentence {self.begun}."])
        assert len(recorded) - n_answered in (0, 2)
        self.exchanges = recorded


def test_answered_turns_are_recorded(start_server: StartServer, tmp_path: Path, seed: int) -> None:
    chooser = random.Random(seed)
    server = start_server([*memory_options(tmp_path), "--no-warmup"])
    speakers = [Speaker(f"session-{number}") for number in range(SESSIONS)]
    for _ in range(KILLS_PER_SEED):
        with ThreadPoolExecutor(SESSIONS) as threads:
            running = [threads.submit(speaker.run, server) for speaker in speakers]
            time.sleep(chooser.uniform(0, LONGEST_S))
            server.kill()
        for each in running:
            each.result()
        server.start()
        for speaker in speakers:
            speaker.check(server)
