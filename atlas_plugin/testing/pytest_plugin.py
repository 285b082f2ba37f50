"""What pytest gets by its entry point: the fixture `atlas_server`. Only pytest imports this."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin.testing.server import LiveServer, ServerMissingError, StartServer


@pytest.fixture
def atlas_server(tmp_path: Path) -> Iterator[StartServer]:
    """atlas_server(plugins=[...], settings={...}): starts the real llama-server; the test's end stops it.

    It gives a LiveServer. ATLAS_TEST_BINARY and ATLAS_TEST_MODEL name another server and model than those of
    ATLAS's source tree.
    """
    servers: list[LiveServer] = []

    def start(**options: Any) -> LiveServer:
        try:
            servers.append(LiveServer(directory=tmp_path, **options))
        except ServerMissingError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        return servers[-1].start()

    yield start
    for server in servers:
        server.close()
