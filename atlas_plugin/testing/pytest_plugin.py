"""What pytest gets by its entry point: the fixture `atlas_server`. Only pytest imports this."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin.testing.server import LiveServer, ServerMissingError, StartServer

_SERVERS = pytest.StashKey[list[LiveServer]]()


@pytest.fixture
def atlas_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartServer]:
    """atlas_server(plugins=[...], settings={...}): starts the real llama-server; the test's end stops it.

    It gives a LiveServer, whose log the report of a test that fails has. ATLAS_TEST_BINARY and
    ATLAS_TEST_MODEL name another server and model than those of ATLAS's source tree.
    """
    servers: list[LiveServer] = request.node.stash.setdefault(_SERVERS, [])

    def start(**options: Any) -> LiveServer:
        try:
            servers.append(LiveServer(directory=tmp_path, **options))
        except ServerMissingError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        return servers[-1].start()

    yield start
    for server in servers:
        server.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the servers' logs to the report of a test that failed."""
    report = yield
    if report.failed:
        for server in item.stash.get(_SERVERS, []):
            report.sections.append((f"log of llama-server on {server.url}", server.log))
    return report
