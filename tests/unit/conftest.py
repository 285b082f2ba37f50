"""Fixtures shared by the unit tests."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atlas_plugin import Response
from atlas_plugin.host import worker
from atlas_plugin.http import Request
from atlas_plugin.memory import keeper as keeping
from atlas_plugin.testing import Application, FakeHost
from tests.unit.shared_store import Server, SharedStore


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Take back what starting an application does to the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = threading.excepthook, sys.unraisablehook
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    threading.excepthook, sys.unraisablehook = hooks


@pytest.fixture(autouse=True)
def plugin_files_forgotten() -> Iterator[None]:
    """Take back the modules of plugins that are files."""
    yield
    for name in [name for name in sys.modules if name.startswith("atlas_user_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def start() -> Iterator[Callable[[FakeHost], Application]]:
    """Start an application over a fake host; it is stopped after the test."""
    applications: list[Application] = []

    def started(host: FakeHost) -> Application:
        applications.append(Application(host))
        applications[-1].start()
        return applications[-1]

    yield started
    for application in applications:
        application.stop()


@pytest.fixture
def call() -> Callable[..., Response]:
    """Send a request to an application: call(application, "POST", path, body=…)."""

    def called(application: Application, method: str, path: str, **fields: Any) -> Response:
        response = application.handle(Request(method, path, **fields))
        assert isinstance(response, Response)
        return response

    return called


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait for other threads: eventually(condition) returns once it is true."""

    def waited(condition: Callable[[], object]) -> None:
        for _ in range(4000):
            if condition():
                return
            time.sleep(0.005)
        raise AssertionError("it did not happen within 20 seconds")

    return waited


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done beside the requests is done at once."""
    monkeypatch.setattr(keeping, "POLL_S", 0.002)
    monkeypatch.setattr(worker, "RETRY_S", 0.002)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The memory path of `new_host`."""
    return tmp_path / "memory"


@pytest.fixture
def new_host(directory: Path) -> Callable[..., FakeHost]:
    """Makes hosts with these settings; all have one memory path."""
    return lambda **settings: FakeHost(memory_save_path=str(directory), **settings)


@pytest.fixture
def ask(call: Callable[..., Response]) -> Callable[..., tuple[int, Any]]:
    """ask(application, operation, **fields): the status, and the data or the error of the answer."""

    def asked(application: Application, operation: str, **fields: Any) -> tuple[int, Any]:
        response = call(
            application, "POST", f"/v1/atlas/memory/{operation}", body=msgspec.json.encode(fields)
        )
        document = msgspec.json.decode(response.body)
        return response.status, document["data" if response.status == 200 else "error"]

    return asked


@pytest.fixture
def store() -> SharedStore:
    return SharedStore()


@pytest.fixture
def servers(tmp_path: Path, store: SharedStore) -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def make(name: str, **settings: Any) -> Server:
        made.append(Server(tmp_path / name, store, **settings))
        return made[-1]

    yield make
    for server in made:
        server.database.close()
