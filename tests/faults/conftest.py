"""Faults of the machine around a server: kills, disks, clocks, memory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.small_disk import SmallDisk
from tests.server.conftest import spawn_server, start_server
from tests.server.conversations import ONE_THREAD
from tests.server.harness import STOCK_BINARY, Server

__all__ = ["spawn_server", "start_server"]

# Of 25 kills each, in a memory of its own.
MANY_SEEDS, FEW_SEEDS = range(8), range(2)
MANY_KILLS, FEW_KILLS = 200, 12


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-kills", action="store_true", help="kill servers hundreds of times, not dozens")


def wants_all(config: pytest.Config) -> bool:
    """Whether --all-kills was given; not when pytest was started for more than this directory."""
    return bool(config.getoption("--all-kills", default=False))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everything = wants_all(metafunc.config)
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", MANY_SEEDS if everything else FEW_SEEDS)
    if "n_kills" in metafunc.fixturenames:
        metafunc.parametrize("n_kills", [MANY_KILLS if everything else FEW_KILLS])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of 8 MiB."""
    disk = SmallDisk(tmp_path / "disk", 8 << 20)
    yield disk
    disk.close()


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Untouched upstream, to compare with."""
    with Server(ONE_THREAD, directory=tmp_path_factory.mktemp("cold"), binary=STOCK_BINARY) as running:
        yield running
