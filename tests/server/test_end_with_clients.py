"""SIGTERM while clients wait: each is told, soon, and nothing that was computed is lost."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.completions import ENDLESS_OPTIONS
from tests.server.conftest import StartServer
from tests.server.conversations import ONE_THREAD, REUSED
from tests.server.harness import MODEL, Server
from tests.server.preloading import SlowBatches

CHAT = "/v1/chat/completions"
# Far more than the test waits: what ends the server in time is not the timeout.
PATIENT = ["--atlas-shutdown-timeout", "600", "--atlas-pool-timeout-ms", "600000"]
LONG = {"n_predict": -1, "max_tokens": -1, "ignore_eos": True}
HELLO = [{"role": "user", "content": "Hello!"}]
REFUSED = "the server is shutting down"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def slow(start_server: StartServer, tmp_path: Path) -> Server:
    """Two slots, where a batch takes 50 ms."""
    options = [*ONE_THREAD, *ENDLESS_OPTIONS, *PATIENT, "--metrics", "-b", "32", "-ub", "32"]
    memory = ["--atlas-memory-path", tmp_path / "memory"]
    server: Server = start_server([*options, *memory], SlowBatches(tmp_path, 50).environment)
    return server


def status_of(server: Server) -> Any:
    return server.get("/v1/atlas/status").json()["data"]


def occupy(server: Server, threads: ThreadPoolExecutor, **fields: Any) -> list[Future[httpx.Response]]:
    """Two completions that never end, one streamed and one not, both of clients that read."""
    running = [
        threads.submit(server.post, "/completion", {"prompt": "Once", **LONG, "stream": stream, **fields})
        for stream in (True, False)
    ]
    server.wait_until(lambda: all(slot["is_processing"] for slot in server.get("/slots").json()))
    return running


def deferred(server: Server) -> int:
    """Tasks that wait for a slot."""
    lines = server.get("/metrics").text.splitlines()
    return int(next(line for line in lines if line.startswith("llamacpp:requests_deferred ")).split()[1])


def wait_for_slots(server: Server, threads: ThreadPoolExecutor) -> list[Future[httpx.Response]]:
    waiting = [
        threads.submit(server.post, path, {**body, **LONG, "stream": stream})
        for path, body in (("/completion", {"prompt": "Twice"}), (CHAT, {"messages": HELLO}))
        for stream in (True, False)
    ]
    server.wait_until(lambda: deferred(server) == len(waiting))
    return waiting


def wait_for_contexts(server: Server, threads: ThreadPoolExecutor) -> list[Future[httpx.Response]]:
    waiting = [
        threads.submit(server.post, CHAT, {"messages": HELLO, "atlas": {"session_id": name}}) for name in "ab"
    ]
    server.wait_until(lambda: status_of(server)["pool"]["waiting"] == len(waiting))
    return waiting


def wait_for_turns(server: Server, threads: ThreadPoolExecutor) -> list[Future[httpx.Response]]:
    """The first has its turn, and waits for a context."""
    body = {"messages": HELLO, "atlas": {"session_id": "c", "history": "server"}}
    waiting = [threads.submit(server.post, CHAT, body) for _ in range(2)]
    text = "atlas_requests_in_progress 4.0"
    server.wait_until(lambda: text in server.get("/v1/atlas/metrics/prometheus").text)
    return waiting


@pytest.mark.parametrize("wait", [wait_for_slots, wait_for_contexts, wait_for_turns])
def test_who_waits_and_who_is_served_are_told(
    slow: Server,
    threads: ThreadPoolExecutor,
    wait: Callable[[Server, ThreadPoolExecutor], list[Future[httpx.Response]]],
) -> None:
    streamed, whole = occupy(slow, threads)
    waiting = wait(slow, threads)
    idle = socket.create_connection(("127.0.0.1", slow.port))
    assert slow.stop() == 0
    idle.close()
    for answer in [whole.result(), *(each.result() for each in waiting)]:
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert (error["code"], error["message"]) == (503, REFUSED)
    *_, last = [line for line in streamed.result().text.splitlines() if line]
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == REFUSED
    assert not slow.logged("ending although requests are still open")


@pytest.mark.parametrize(("path", "event"), [("/v1/messages", "event: error"), ("/v1/responses", "data: ")])
def test_streams_of_other_routes(slow: Server, threads: ThreadPoolExecutor, path: str, event: str) -> None:
    body = {"messages": HELLO, "input": "Hello!", **LONG, "max_tokens": 100000, "stream": True}
    running = threads.submit(slow.post, path, body)
    slow.wait_until(lambda: any(slot["is_processing"] for slot in slow.get("/slots").json()))
    assert slow.stop() == 0
    lines = [line for line in running.result().text.splitlines() if line]
    assert REFUSED in lines[-1]
    assert any(line.startswith(event) for line in lines[-2:])


def test_what_was_computed_is_kept(slow: Server, threads: ThreadPoolExecutor) -> None:
    prompt = [100 + number % 500 for number in range(1800)]
    cut_off = threads.submit(slow.post, "/completion", {"prompt": prompt, "n_predict": 4})
    seen = [0]

    def is_half_way() -> bool:
        seen.append(max(slot.get("n_prompt_tokens_processed", 0) for slot in slow.get("/slots").json()))
        return seen[-1] >= len(prompt) / 2

    slow.wait_until(is_half_way)
    assert slow.stop() == 0
    assert cut_off.result().status_code == 503
    slow.environment.pop("LD_PRELOAD")
    slow.start()
    answer = slow.post("/completion", {"prompt": prompt, "n_predict": 1, "atlas": {}}).json()
    assert answer["atlas"]["reused_tokens"] >= REUSED * seen[-1]


def test_those_of_a_routers_models(
    start_server: StartServer, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/one.gguf").write_bytes(MODEL.read_bytes())
    options = ["--models-dir", tmp_path / "models", *ONE_THREAD, *ENDLESS_OPTIONS, *PATIENT]
    router = start_server(options, SlowBatches(tmp_path, 50).environment, model=None)
    body = {"model": "one", "prompt": "Once", **LONG}
    running = [
        threads.submit(router.post, "/completion", {**body, "stream": stream}) for stream in (True, False)
    ]
    slots = "/slots?model=one"
    router.wait_until(lambda: router.get(slots).status_code == 200)
    router.wait_until(lambda: all(slot["is_processing"] for slot in router.get(slots).json()))
    assert router.stop() == 0
    streamed, whole = (each.result() for each in running)
    assert REFUSED in [line for line in streamed.text.splitlines() if line][-1]
    assert (whole.status_code, whole.json()["error"]["message"]) == (503, REFUSED)
