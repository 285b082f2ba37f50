"""What needs no server: settings, admission, rates; and the state of sequences. By the C++ test programs."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("atlas-unit-test", "atlas-llama-test", "atlas-api-test")


def path_of(program: str) -> Path:
    return ROOT / "build" / "bin" / program


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = []
    for program in PROGRAMS:
        there = path_of(program).exists()
        listed = subprocess.check_output([path_of(program), "--list"], text=True) if there else "not-built"
        cases += [(program, case) for case in listed.split()]
    metafunc.parametrize(("program", "case"), cases)


def test_case(program: str, case: str, tmp_path: Path) -> None:
    path = path_of(program)
    assert path.exists(), f"{path} is missing; build it: cmake --build build --target {program}"
    environment = os.environ | {"ATLAS_TEST_MODEL": str(ROOT / "models" / "demo-2m-f16.gguf")}
    done = subprocess.run(
        [path, case, tmp_path], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
