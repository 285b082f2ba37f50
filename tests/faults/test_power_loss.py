"""The power fails at any call that changes the disk: what was acknowledged is there, and nothing is wrong."""

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.power_loss import Disk, build_library
from tests.faults.test_kill_9_while_saving import document, load
from tests.server.conversations import (
    ASK_NAME,
    ONE_THREAD,
    Conversation,
    chat,
    cold_chat,
    flush,
    memory_status,
    wait_for_memory,
)
from tests.server.harness import Server, ServerExitedError
from tests.unit.test_memory_store import PROGRAM

# The calls that change the disk, in a run that ends by itself, are about so many.
CALLS_OF_STORE, CALLS_OF_SERVER = 400, 300
FAILURES_OF_STORE = 12
TURNS = 40
KEY, OTHER, ADMIN = "key", "other", "admin"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("power-loss"))


def run_store(disk: Disk, at: int) -> dict[str, str]:
    """Seeds and lengths of the conversations that a store told were durable, until the power failed."""
    command: list[str | Path] = [PROGRAM, "writer", disk.path / "a/memory"]
    environment = os.environ | disk.environment(at)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    disk.fail()
    return dict(line.split() for line in done.stdout.splitlines(keepends=True) if line.endswith("\n"))


def test_store(library: Path, tmp_path: Path, seed: int) -> None:
    assert PROGRAM.exists(), f"{PROGRAM} is missing; build it: make build-tests"
    chooser = random.Random(seed)
    disk = Disk(tmp_path / "disk", library, chooser)
    told: dict[str, str] = {}
    for _ in range(FAILURES_OF_STORE):
        told |= run_store(disk, chooser.randint(1, CALLS_OF_STORE))
        found = subprocess.run(
            [PROGRAM, "verify", disk.path / "a/memory"],
            input="".join(f"{one} {n}\n" for one, n in told.items()),
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        disk.settle()
    assert told


class Client:
    """Saves contexts, asks and flushes, until the power fails. Knows what was acknowledged."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.number = 0
        self.saved: dict[str, set[int]] = {}
        """By context, what may be there: what was acknowledged last and what was sent after it; 0: none."""
        self.flushed: dict[int, int] = {}
        """By conversation, its tokens when it was flushed."""

    def run(self) -> None:
        with suppress(httpx.TransportError):
            for _ in range(TURNS):
                self._turn()

    def _turn(self) -> None:
        self.number += 1
        name = f"context-{self.number % 5}"
        self.saved.setdefault(name, {0}).add(self.number)
        body = {"context_id": name, "state": document(self.number)}
        answer = self.server.post("/v1/atlas/memory/save", body)
        assert answer.status_code == 200, answer.text
        self.saved[name] = {self.number}
        if self.number % 3 == 0:
            asked = chat(self.server, Conversation(self.number).asking(ASK_NAME))
            flush(self.server)
            self.flushed[self.number] = asked.prompt

    def check(self, cold: Server) -> None:
        """All of it, on a server that was started again."""
        for name, possible in self.saved.items():
            state = load(self.server, name)
            if state is None:
                assert 0 in possible, f"{name} is lost"
                continue
            assert state == document(state["number"])
            assert state["number"] in possible
            self.saved[name] = {state["number"]}
        for number, prompt in self.flushed.items():
            messages = Conversation(number).asking(ASK_NAME)
            answer = chat(self.server, messages)
            assert answer.text == cold_chat(cold, messages).text
            assert answer.reused >= prompt - 1


@contextmanager
def as_admin(server: Server) -> Iterator[None]:
    """Requests are those of who may see all of the status."""
    headers = server.client.headers
    own = headers["Authorization"]
    headers["Authorization"] = f"Bearer {ADMIN}"
    yield
    headers["Authorization"] = own


@pytest.fixture
def server(library: Path, tmp_path: Path) -> Iterator[Server]:
    """A server whose disk is at `tmp_path`/disk, not started; its two keys make it keep a secret there."""
    options: list[str | Path] = [
        *ONE_THREAD,
        "--no-warmup",
        "--atlas-memory-path",
        tmp_path / "disk/a/memory",
        "--api-key",
        OTHER,
        "--atlas-admin-key",
        ADMIN,
    ]
    server = Server(options, directory=tmp_path, api_key=KEY)
    yield server
    server.kill()
    server.client.close()


def test_server(server: Server, library: Path, tmp_path: Path, seed: int, cold: Server) -> None:
    chooser = random.Random(seed)
    disk = Disk(tmp_path / "disk", library, chooser)
    own = dict(server.environment)
    client = Client(server)
    for _ in range(4):
        server.environment = own | disk.environment(chooser.randint(1, CALLS_OF_SERVER))
        with suppress(ServerExitedError):
            server.start()
            client.run()
        server.kill()
        disk.fail()
        server.environment = own | disk.environment()
        server.start()
        with as_admin(server):
            wait_for_memory(server)
        client.check(cold)
        with as_admin(server):
            status = memory_status(server)
            assert server.get("/v1/atlas/status").json()["status"] == "healthy"
        assert (status["disk"]["problem"], status["damaged_files"], status["foreign_files"]) == (None, 0, 0)
        server.kill()
    assert client.saved
