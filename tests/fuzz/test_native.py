"""The targets of `make fuzz` in C++, with the corpus and for a few seconds more."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server.harness import REPOSITORY

TARGETS = [
    "request-fields",
    "entry-file",
    "entry-directory",
    "resp-replies",
    "sealed-value",
    "compressed-value",
]
CORPUS = REPOSITORY / "native/core/fuzz/corpus"
SECONDS = 5


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    assert shutil.which("clang++"), (
        "clang++ is missing; install it: apt-get install --no-install-recommends clang libclang-rt-dev"
    )
    done = subprocess.run(["make", "build-fuzz"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_breaks_a_promise(target: str, tmp_path: Path) -> None:
    program = REPOSITORY / f"build-fuzz/fuzz-{target}"
    command: list[str | Path] = [
        program,
        "-seed=1",
        f"-max_total_time={SECONDS}",
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run([*command, tmp_path, CORPUS / target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
