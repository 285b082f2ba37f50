"""Many clients with good and bad requests at once: all get documented answers, and nothing is left behind.

ATLAS_TEST_SOAK_S: how many seconds that takes, 15 without it.
"""

import os
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from load.process import descriptor_count, thread_count
from tests.server.completions import BODIES, ENDLESS_OPTIONS, Leaving
from tests.server.conftest import StartServer
from tests.server.conversations import flush, memory_options
from tests.server.harness import Server
from tests.server.soaking import (
    CHAT,
    CLIENTS,
    ENDLESS,
    IDLE,
    LIMITS,
    SLOTS,
    Client,
    pool,
    soak,
    user,
)

SOAK_S = float(os.environ.get("ATLAS_TEST_SOAK_S", "15"))
WARM_UP_S = 3.0


def held(server: Server) -> dict[str, int]:
    """Threads and file descriptors of the process."""
    assert server.process is not None
    pid = server.process.pid
    return {"threads": thread_count(pid), "descriptors": descriptor_count(pid)}


def saved_states(server: Server) -> dict[str, Any]:
    """All saved contexts, by name."""
    page = server.post("/v1/atlas/memory/list", {"limit": 1000}).json()["data"]
    assert page["next_cursor"] is None
    names = [entry["context_id"] for entry in page["contexts"] if entry["bytes"] is not None]
    loaded = (server.post("/v1/atlas/memory/load", {"context_id": name}).json()["data"] for name in names)
    return {each["context_id"]: each["state"] for each in loaded}


def test_nothing_is_left_behind(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), "-np", str(SLOTS), *LIMITS])
    seen: Counter[str] = Counter()
    clients = [Client(server, number, seen) for number in range(CLIENTS)]

    def settle() -> None:
        server.wait_until(lambda: pool(server) == IDLE)
        flush(server)

    # threads, and connections to the database, are made as they are first needed
    soak(clients, WARM_UP_S)
    settle()
    before = held(server)
    # a busy machine may need longer until each kind of answer was met
    wanted = "200", "400", "404", "429", "503", "degraded"
    soak(clients, SOAK_S, until=lambda: all(seen[kind] for kind in wanted))
    settle()
    server.wait_until(lambda: all(held(server)[what] <= before[what] for what in before))
    assert saved_states(server) == {name: state for each in clients for name, state in each.saved.items()}
    assert server.stop() == 0


class TestClientsThatLeave:
    """Their places are free at once."""

    # Not all routes hand ignore_eos on.
    NEVER_ENDING = ("--ignore-eos", *ENDLESS_OPTIONS)

    def test_while_they_wait_for_a_context(self, start_server: StartServer, tmp_path: Path) -> None:
        options = ["-np", "1", *self.NEVER_ENDING, "--atlas-pool-timeout-ms", "3600000"]
        server = start_server([*memory_options(tmp_path), *options])
        body = {**user("a"), "atlas": {"session_id": "waits"}}
        with server.client.stream("POST", CHAT, json={**user("a"), **ENDLESS, "atlas": {}}) as running:
            lines = running.iter_lines()
            next(lines)
            for _ in range(3):
                with Leaving(server, body, path=CHAT):
                    server.wait_until(lambda: pool(server)["waiting"] == 1)
                server.wait_until(lambda: pool(server) == {"in_use": 1, "waiting": 0, "in_progress": 1})
            next(lines)
            patient = threading.Thread(target=server.post, args=(CHAT, body))
            patient.start()
            server.wait_until(lambda: pool(server)["waiting"] == 1)
        patient.join()
        server.wait_until(lambda: pool(server) == IDLE)

    def test_while_they_wait_for_their_session(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(
            [*memory_options(tmp_path), *self.NEVER_ENDING, "--atlas-pool-timeout-ms", "3600000"]
        )
        atlas = {"atlas": {"session_id": "told", "history": "server"}}
        with server.client.stream("POST", CHAT, json={**user("a"), **ENDLESS, **atlas}) as running:
            lines = running.iter_lines()
            next(lines)
            for _ in range(3):
                with suppress(httpx.ReadTimeout):
                    server.post(CHAT, {**user("left"), **atlas}, timeout=0.2)
            next(lines)
        assert server.post(CHAT, {**user("stayed"), **atlas}).status_code == 200
        record = server.post("/v1/atlas/memory/load", {"context_id": "told"}).json()["data"]
        said = [message["content"] for message in record["session"]["conversation_history"]]
        assert said[0] == "stayed"
        server.wait_until(lambda: pool(server) == IDLE)

    def test_while_they_are_answered(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server([*memory_options(tmp_path), *self.NEVER_ENDING])
        for path in (CHAT, "/completion", "/v1/completions", "/v1/messages", "/v1/responses"):
            for stream in (True, False):
                body = {
                    **BODIES[path],
                    **ENDLESS,
                    "max_output_tokens": 100_000,
                    "stream": stream,
                    "atlas": {},
                }
                if not stream:
                    with Leaving(server, body, path=path):
                        server.wait_until(lambda: pool(server)["in_use"] == 1)
                else:
                    with server.client.stream("POST", path, json=body) as running:
                        next(running.iter_lines())
                server.wait_until(lambda: pool(server) == IDLE)

    def test_while_a_batch_goes_on(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server([*memory_options(tmp_path), *self.NEVER_ENDING])
        body = {**ENDLESS, "prompt": ["a"] * 20, "atlas": {"batch_size": 1}}
        with server.client.stream("POST", "/completion", json=body) as running:
            lines = running.iter_lines()
            next(lines)
            assert pool(server)["in_use"] == 1
            next(lines)
        server.wait_until(lambda: pool(server) == IDLE)
        server.wait_until(lambda: not any(slot["is_processing"] for slot in server.get("/slots").json()))
        assert server.post("/completion", {"prompt": "a", "n_predict": 1, "atlas": {}}).status_code == 200
