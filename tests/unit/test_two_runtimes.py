"""Two servers' runtimes in one process, through a C++ test program that embeds this environment's Python."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BINARIES = Path(__file__).parents[2] / "build" / "bin"
PROGRAM = BINARIES / "atlas-runtime-test"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    listed = subprocess.check_output([PROGRAM, "--list"], text=True) if PROGRAM.exists() else "not-built"
    metafunc.parametrize("case", listed.split())


def test_case(case: str, tmp_path: Path) -> None:
    assert PROGRAM.exists(), (
        f"{PROGRAM} is missing; build it: cmake --build build --target atlas-runtime-test"
    )
    where = {"ATLAS_TEST_PYTHON_MODULE": str(BINARIES / "libatlas-python.so"), "VIRTUAL_ENV": sys.prefix}
    done = subprocess.run(
        [PROGRAM, case, tmp_path],
        env=os.environ | where,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
