"""What was answered with 200 is there after `kill -9`, whenever it comes."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.harness import Server

SEED = 20261122
# Few enough to be overwritten all the time, beside those that are written once.
OVERWRITTEN_IDS = 8
MAX_SAVES_BEFORE_KILL = 25


@pytest.fixture
def durable_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(["--no-warmup", "--atlas-memory-path", tmp_path / "memory"], directory=tmp_path)
    yield server
    server.kill()
    server.client.close()


class Writer(threading.Thread):
    """Saves one numbered context after the other until the connection breaks.

    `sent` and `confirmed` have the number last sent and last answered with 200, by id. `enough` is set after
    `wanted` confirmations, or when there will be no more.
    """

    def __init__(self, url: str, number: int, wanted: int, chooser: random.Random) -> None:
        super().__init__()
        self.url = url
        self.number = number
        self.wanted = wanted
        self.chooser = chooser
        self.sent: dict[str, int] = {}
        self.confirmed: dict[str, int] = {}
        self.confirmations = 0
        self.enough = threading.Event()
        self.refusals: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60.0) as client:
            try:
                while not self.refusals:
                    self.save(client)
            except httpx.TransportError:
                pass
        self.enough.set()

    def save(self, client: httpx.Client) -> None:
        self.number += 1
        if self.chooser.random() < 0.5:
            context_id = f"overwritten-{self.chooser.randrange(OVERWRITTEN_IDS)}"
        else:
            context_id = f"once-{self.number}"
        self.sent[context_id] = self.number
        body = {"context_id": context_id, "state": document(self.number)}
        answer = client.post("/v1/atlas/memory/save", json=body)
        if answer.status_code != 200:
            self.refusals.append(answer.text)
            return
        self.confirmed[context_id] = self.number
        self.confirmations += 1
        if self.confirmations >= self.wanted:
            self.enough.set()


def document(number: int) -> dict[str, Any]:
    """A state that tells its number; sizes from a few bytes to several database pages."""
    return {"number": number, "text": f"{number} " * (number * 7919 % 4000)}


def load(server: Server, context_id: str) -> dict[str, Any] | None:
    answer = server.post("/v1/atlas/memory/load", {"context_id": context_id})
    assert answer.status_code in (200, 404), answer.text
    if answer.status_code == 404:
        return None
    state: dict[str, Any] = answer.json()["data"]["state"]
    return state


def test_confirmed_saves_survive_kill_9(durable_server: Server, n_kills: int) -> None:
    server, chooser = durable_server, random.Random(SEED)
    number = 0
    everything: dict[str, int] = {}
    server.start()
    for _ in range(n_kills):
        writer = Writer(server.url, number, chooser.randint(1, MAX_SAVES_BEFORE_KILL), chooser)
        writer.start()
        assert writer.enough.wait(60)
        server.kill()
        writer.join()
        assert writer.refusals == []
        number = writer.number

        server.start()
        for context_id, last_sent in writer.sent.items():
            state = load(server, context_id)
            last_confirmed = writer.confirmed.get(context_id, everything.get(context_id))
            if state is None:
                assert last_confirmed is None, f"{context_id} is lost"
                continue
            # The save that the kill cut off may be there or not, but whole.
            assert state == document(state["number"])
            assert state["number"] in (last_confirmed, last_sent)
            everything[context_id] = state["number"]

    assert len(everything) > n_kills
    for context_id, expected in everything.items():
        assert load(server, context_id) == document(expected)
    assert server.get("/v1/atlas/status").json()["status"] == "healthy"
    assert server.stop() == 0
