import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.harness import STOCK_BINARY, Server

# A shell starts background jobs with SIGINT ignored, and servers would inherit that from pytest. What has a
# handler is reset to the default in a child.
signal.signal(signal.SIGINT, signal.default_int_handler)

StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers that the test's end kills; takes the arguments of Server but `directory`."""
    servers: list[Server] = []

    def start(*arguments: Any, **options: Any) -> Server:
        server = Server(*arguments, directory=tmp_path, **options)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.kill()
        server.client.close()


@pytest.fixture
def spawn_server(tmp_path: Path) -> Iterator[StartServer]:
    """As start_server, but does not wait: for servers that never serve."""
    servers: list[Server] = []

    def spawn(*arguments: Any, **options: Any) -> Server:
        server = Server(*arguments, directory=tmp_path, **options)
        servers.append(server)
        server.spawn()
        return server

    yield spawn
    for server in servers:
        server.kill()
        server.client.close()


@pytest.fixture
def endless_model(tmp_path: Path) -> Path:
    """A model whose loading never ends: opening a FIFO waits for a writer."""
    path = tmp_path / "model.gguf"
    os.mkfifo(path)
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with memory on disk and default settings, shared by the tests that change nothing in it."""
    directory = tmp_path_factory.mktemp("server")
    with Server(["--atlas-memory-path", directory / "memory"], directory=directory) as running:
        yield running


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Untouched upstream, to compare with."""
    with Server(directory=tmp_path_factory.mktemp("stock"), binary=STOCK_BINARY) as running:
        yield running
