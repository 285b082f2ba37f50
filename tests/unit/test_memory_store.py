"""The memory store, through its C++ test program, and what of it survives kill -9."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

PROGRAM = Path(
    os.environ.get("ATLAS_MEMORY_TEST", Path(__file__).parents[2] / "build" / "bin" / "atlas-memory-test")
)
KILLS = 25


def run(*arguments: str | Path, given: str = "") -> str:
    process = subprocess.run(
        [PROGRAM, *arguments], input=given, capture_output=True, text=True, timeout=280, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        built = PROGRAM.exists()
        metafunc.parametrize("case", run("--list").split() if built else ["not-built"])


def test_case(case: str, tmp_path: Path) -> None:
    assert PROGRAM.exists(), f"{PROGRAM} is missing; build it: cmake --build build --target atlas-memory-test"
    print(run(case, tmp_path))
    shutil.rmtree(tmp_path)  # may be many files, which pytest would keep for three sessions


def test_what_was_flushed_survives_kill_9(tmp_path: Path) -> None:
    seconds = random.Random(1)
    printed = ""
    for _ in range(KILLS):
        with subprocess.Popen([PROGRAM, "writer", tmp_path], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            printed += writer.stdout.readline()  # it runs; kill it anywhere in what follows
            time.sleep(seconds.uniform(0, 0.1))
            writer.send_signal(signal.SIGKILL)
            printed += writer.stdout.read()
        assert writer.returncode == -signal.SIGKILL
    assert len(printed.splitlines()) >= KILLS
    # of each conversation, the last turn printed has superseded the others
    last = dict(line.split() for line in printed.splitlines(keepends=True) if line.endswith("\n"))
    run("verify", tmp_path, given="".join(f"{seed} {n}\n" for seed, n in last.items()))
