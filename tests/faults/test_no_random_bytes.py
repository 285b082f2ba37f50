"""A system that gives no random bytes: a server that has to keep API keys apart does not start."""

import subprocess
from pathlib import Path

import pytest

from tests.server.conftest import StartServer
from tests.server.keys import key_options

REFUSING = """
#include <cerrno>
#include <cstddef>
extern "C" ssize_t getrandom(void *, size_t, unsigned) { errno = ENOSYS; return -1; }
"""


@pytest.fixture
def refusing(tmp_path: Path) -> Path:
    """A library to be loaded first, whose getrandom fails as in a sandbox that forbids it."""
    source, library = tmp_path / "refusing.cpp", tmp_path / "refusing.so"
    source.write_text(f"#include <sys/types.h>\n{REFUSING}", encoding="utf-8")
    subprocess.run(["c++", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def test_does_not_start(spawn_server: StartServer, tmp_path: Path, refusing: Path) -> None:
    server = spawn_server(key_options(tmp_path), {"LD_PRELOAD": str(refusing)})
    assert server.wait() != 0
    assert "no random bytes for the secret that keeps API keys apart" in server.log
