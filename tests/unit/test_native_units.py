"""Settings, admission and rate limits, through the library's C++ test program."""

import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "build" / "bin" / "atlas-unit-test"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    listed = subprocess.check_output([PROGRAM, "--list"], text=True) if PROGRAM.exists() else "not-built"
    metafunc.parametrize("case", listed.split())


def test_case(case: str, tmp_path: Path) -> None:
    assert PROGRAM.exists(), f"{PROGRAM} is missing; build it: cmake --build build --target atlas-unit-test"
    done = subprocess.run([PROGRAM, case, tmp_path], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
