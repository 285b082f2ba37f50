"""What every tier does, on each kind of store: the cases of atlas-tier-test."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.stores import (
    ACL,
    PASSWORD,
    Certificates,
    RespCluster,
    RespServer,
    redis_server,
    valkey_server,
)
from tests.tiers.driver import PROGRAM, program


def _cases() -> list[str]:
    if not PROGRAM.exists():
        return ["not-built"]
    return subprocess.check_output([PROGRAM, "--list"], text=True).split()


def run(case: str, directory: Path, url: str, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        [program(), case, directory],
        env={**os.environ, **(environment or {}), "ATLAS_TEST_TIER": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _redis(directory: Path) -> Iterator[str]:
    with RespServer(directory, redis_server()) as server:
        yield server.url


@contextmanager
def _valkey(directory: Path) -> Iterator[str]:
    with RespServer(directory, valkey_server()) as server:
        yield f"{server.url}/3?connections=2"


@contextmanager
def _password(directory: Path) -> Iterator[str]:
    with RespServer(directory, password=PASSWORD) as server:
        yield f"redis://:{quote(PASSWORD, safe='')}@{server.address}"


@contextmanager
def _least_rights(directory: Path) -> Iterator[str]:
    with RespServer(directory) as server:
        server.command("ACL", "SETUSER", "ada", "on", f">{PASSWORD}", *ACL.split())
        yield f"valkey://ada:{quote(PASSWORD, safe='')}@{server.address}/2"


@contextmanager
def _tls(directory: Path) -> Iterator[str]:
    certificates = Certificates(directory / "certificates")
    with RespServer(directory, tls=certificates) as server:
        yield f"valkeys://{server.address}?ca={certificates.authority}"


STORES = {
    "redis": _redis,
    "valkey": _valkey,
    "password": _password,
    "least rights": _least_rights,
    "tls": _tls,
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("case", _cases())
def test_server(store: str, case: str, tmp_path: Path) -> None:
    with STORES[store](tmp_path) as url:
        run(case, tmp_path, url)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RespCluster]:
    with RespCluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.mark.parametrize("case", _cases())
def test_cluster(case: str, cluster: RespCluster, tmp_path: Path) -> None:
    for server in cluster.servers:
        server.command("FLUSHALL")
    run(case, tmp_path, cluster.url)
