"""Plugins that a test holds at a point of the server's life, and that say how far they came."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.harness import Server, write_plugin

BOTH_SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)

# The shutdown hook leaves a file, so that a test sees that it ran to its end.
SHUTDOWN_HOOK = """
import asyncio, ctypes, logging, pathlib, signal, threading, time
from atlas_plugin import StreamResponse, hookimpl

HERE = pathlib.Path(__file__).parent
log = logging.getLogger(__name__)

def wait_for(name):
    while not (HERE / name).exists():
        time.sleep(0.005)

@hookimpl
def shutdown():
    (HERE / "shutdown.ran").touch()
"""

BLOCKING_SHUTDOWN = """
@hookimpl
def shutdown():
    (HERE / "shutdown.entered").touch()
    wait_for("release")
    (HERE / "shutdown.ran").touch()
"""

WAITING_ROUTES = """
@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/wait")
    def wait(request):
        (HERE / "wait.entered").touch()
        wait_for("release")
        return "released"

    @routes.get("/v1/atlas/x/hold-the-interpreter")
    def hold_the_interpreter(request):
        (HERE / "hold.entered").touch()
        ctypes.PyDLL(None).pause()

    @routes.get("/v1/atlas/x/ticks")
    def ticks(request):
        return StreamResponse(tick())

    @routes.get("/v1/atlas/x/wait-in-a-stream")
    def wait_in_a_stream(request):
        return StreamResponse(one_and_wait())

def tick():
    try:
        while True:
            yield "tick\\n"
            time.sleep(0.005)
    finally:
        (HERE / "stream.closed").touch()

def one_and_wait():
    yield "one\\n"
    (HERE / "stream.waiting").touch()
    wait_for("release")
"""


def plugin_options(directory: Path, source: str = "") -> list[str | Path]:
    """Options of a server with a plugin of the shutdown hook and that source."""
    return ["--atlas-plugin", write_plugin(directory, SHUTDOWN_HOOK + source)]


@contextmanager
def in_background(
    server: Server, path: str, body: Any = None, key: str | None = None
) -> Iterator[list[httpx.Response | None]]:
    """A GET on a thread, or a POST; the list gets its answer, or None when the connection was cut."""
    answers: list[httpx.Response | None] = []
    method = "GET" if body is None else "POST"
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    def get() -> None:
        try:
            answers.append(httpx.request(method, server.url + path, json=body, headers=headers, timeout=60.0))
        except httpx.TransportError:
            answers.append(None)

    thread = threading.Thread(target=get)
    thread.start()
    try:
        yield answers
    finally:
        thread.join()
