import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.harness import BINARY

GENERATOR = BINARY.with_name("test-llama-archs")
# One model each, "-dense" or "-moe" after the architecture's name in llama.cpp.
ALL_MODELS = Path(__file__).with_name("architectures.txt").read_text(encoding="utf-8").split()
# One or two of each kind of state: plain, MLA, sliding window, hybrid, recurrent, and what cannot be cut.
FEW_MODELS = [
    "deepseek2-moe",
    "deepseek4-moe",
    "gemma3-dense",
    "gpt-oss-moe",
    "lfm2-dense",
    "llama-dense",
    "llama4-moe",
    "mamba-dense",
    "qwen35-dense",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-archs", action="store_true", help="test every architecture, not a few")


def wants_all(config: pytest.Config) -> bool:
    """Whether --all-archs was given; not when pytest was started for more than this directory."""
    return bool(config.getoption("--all-archs", default=False))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model_name" in metafunc.fixturenames:
        metafunc.parametrize("model_name", ALL_MODELS if wants_all(metafunc.config) else FEW_MODELS)


@pytest.fixture(scope="session")
def models(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Directory of the models to test, small and random, which upstream's test program writes: up to 1 GB."""
    directory = tmp_path_factory.mktemp("models")
    command: list[str | Path] = [GENERATOR, "--seed", "1", "--out", directory]
    if not wants_all(pytestconfig):
        names = "|".join(re.escape(name.rpartition("-")[0]) for name in FEW_MODELS)
        command += ["--arch", f"^({names})$"]
    subprocess.run(command, check=True, capture_output=True)
    yield directory
    shutil.rmtree(directory)
