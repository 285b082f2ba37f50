"""Sessions across servers while everything fails: what was answered is there, and nothing is twice."""

import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.server.conftest import StartServer
from tests.server.conversations import ONE_THREAD
from tests.server.harness import Server
from tests.server.test_shared_sessions import CHAT_ROUTE, record, share, shared, user
from tests.stores import RespServer

SOAK_S = float(os.environ.get("ATLAS_TEST_FLEET_S", "4"))
SEED = int(os.environ.get("ATLAS_TEST_FLEET_SEED", "1"))
CLIENTS, PATIENCE_S = 4, 120.0
SESSIONS = 3 + int(SOAK_S / 10)  # so that each fits into the context


class Said:
    """What clients said in each session, and which of it was answered."""

    def __init__(self) -> None:
        self.tried: dict[str, list[str]] = defaultdict(list)
        self.answered: dict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()
        self._number = 0

    def talk(self, servers: list[Server], seed: int, ends: threading.Event) -> None:
        """One client, of any session at any server, until the end."""
        source = random.Random(seed)
        while not ends.is_set():
            session = f"s{source.randrange(SESSIONS)}"
            with self._lock:
                self._number += 1
                text = f"I am t{self._number}."
                self.tried[session].append(text)
            atlas = {"session_id": session, "history": "server"}
            body = {"messages": [user(text)], "temperature": 0, "max_tokens": 4, "atlas": atlas}
            try:
                answer = source.choice(servers).post(CHAT_ROUTE, body)
            except httpx.HTTPError:  # the server was killed
                continue
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 200:
                with self._lock:
                    self.answered[session].append(text)


def restart(server: Server) -> None:
    server.kill()
    server.start()


def hang(store: RespServer) -> None:
    store.stop()
    time.sleep(0.7)  # longer than a request waits for it
    store.go_on()


def empty(store: RespServer) -> None:
    store.kill()
    store.start()


def settle(servers: list[Server]) -> None:
    """Have each tell what it has and learn what others have, until none has anything to tell."""
    deadline = time.monotonic() + PATIENCE_S
    for _ in range(3):
        for server in servers:
            server.wait_until(lambda server=server: shared(server)["problem"] is None)
            for session in range(SESSIONS):
                record(server, f"s{session}")
            share(server)
        assert time.monotonic() < deadline


def test_while_everything_fails(start_server: StartServer, tmp_path: Path) -> None:
    source = random.Random(SEED)
    with RespServer(tmp_path) as store:
        options = [*ONE_THREAD, "-np", "4", "-c", "16384", "--atlas-shared-url", store.url]
        options += ["--atlas-shared-timeout-ms", "500"]
        servers = [start_server([*options, "--atlas-memory-path", tmp_path / name]) for name in "ab"]
        said, ends = Said(), threading.Event()
        threads = [
            threading.Thread(target=said.talk, args=(servers, SEED * CLIENTS + client, ends))
            for client in range(CLIENTS)
        ]
        faults: list[Callable[[], None]] = [
            lambda: hang(store),
            lambda: empty(store),
            lambda: restart(servers[0]),
            lambda: restart(servers[1]),
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + SOAK_S
        # Each of them once at least, in an order drawn.
        for fault in source.sample(faults, len(faults)):
            fault()
        while time.monotonic() < until:
            time.sleep(source.uniform(0.2, 2))
            source.choice(faults)()
        ends.set()
        for thread in threads:
            thread.join()
        settle(servers)
        for session, tried in said.tried.items():
            messages = record(servers[0], session)
            texts = [one["content"] for one in messages[::2]]
            assert [one["role"] for one in messages] == ["user", "assistant"] * len(texts)
            assert len(texts) == len(set(texts))
            assert set(said.answered[session]) <= set(texts) <= set(tried)
            assert record(servers[1], session) == messages
