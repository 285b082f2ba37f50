"""Two servers of different architectures in one process, by a case of the C++ program.

With the model that the case makes by itself, tests/unit/test_native_units.py runs it.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.archs.conftest import GENERATOR
from tests.server.harness import BINARY, MODEL

PROGRAM = BINARY.with_name("atlas-api-test")
# State that cannot be rolled back, that of both kinds in one model, and one that slides a window.
OTHERS = ("mamba", "lfm2", "gemma3")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of small random models."""
    directory = tmp_path_factory.mktemp("models")
    command: list[str | Path] = [
        GENERATOR,
        "--seed",
        "1",
        "--out",
        directory,
        "--arch",
        f"^({'|'.join(OTHERS)})$",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return directory


@pytest.mark.parametrize("other", OTHERS)
def test_two_architectures_at_once(models: Path, tmp_path: Path, other: str) -> None:
    path = models / f"{other}-dense.gguf"
    assert path.exists()
    done = subprocess.run(
        [PROGRAM, "two_models_at_once_answer_as_alone", tmp_path],
        env=os.environ | {"ATLAS_TEST_MODEL": str(MODEL), "ATLAS_TEST_OTHER_MODEL": str(path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
