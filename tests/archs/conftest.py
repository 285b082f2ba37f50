import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import product
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

# Quantised V needs flash attention.
ALL_SETTINGS = [
    f"-fa {attention} {cache} -ctk {key} -ctv {key if attention == 'on' else 'f16'}"
    for attention, cache, key in product(("on", "off"), ("-kvu", "-no-kvu"), ("f16", "q8_0"))
]
# Each two values of different options together.
FEW_SETTINGS = [ALL_SETTINGS[number] for number in (0, 3, 5, 6)]
# Those whose state cannot all be rolled back, and two that are plain.
FEW_REUSED = ["gemma3-dense", "lfm2-dense", "qwen35-dense"]
MANY_REUSED = [
    *FEW_REUSED,
    "cohere2-dense",
    "deepseek2-moe",
    "deepseek4-moe",
    "exaone4-dense",
    "falcon-h1-dense",
    "gemma2-dense",
    "gpt-oss-moe",
    "jamba-dense",
    "llama-dense",
    "llama4-moe",
    "mamba-dense",
    "plamo3-dense",
    "qwen3next-moe",
    "smallthinker-moe",
]
# Whose images have rows and columns (M-RoPE).
PLANAR = [
    "paddleocr-moe",
    "qwen2vl-dense",
    "qwen35-dense",
    "qwen35moe-moe",
    "qwen3vl-dense",
    "qwen3vlmoe-moe",
    "qwen4exp-moe",
]
FEW_MEDIA = [*FEW_REUSED, "llama-dense", "qwen2vl-dense"]
# Having no V, these refuse a type for it that is not K's.
ONE_TYPE = {"deepseek2-moe", "deepseek4-moe"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-archs", action="store_true", help="test every architecture, not a few")


def wants_all(config: pytest.Config) -> bool:
    """Whether --all-archs was given; not when pytest was started for more than this directory."""
    return bool(config.getoption("--all-archs", default=False))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everything = wants_all(metafunc.config)
    if "model_name" in metafunc.fixturenames:
        metafunc.parametrize("model_name", ALL_MODELS if everything else FEW_MODELS)
    if "reuse_model" in metafunc.fixturenames:
        names = MANY_REUSED if everything else FEW_REUSED
        metafunc.parametrize("reuse_model", names, scope="module")
    if "settings" in metafunc.fixturenames:
        combinations = [
            (name, settings)
            for name, settings in product(FEW_MODELS, ALL_SETTINGS if everything else FEW_SETTINGS)
            if not (name in ONE_TYPE and settings.endswith("q8_0 -ctv f16"))
        ]
        metafunc.parametrize(("few_model", "settings"), combinations)


@pytest.fixture(scope="session")
def models(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Directory of the models to test, small and random, which upstream's test program writes: up to 1 GB."""
    directory = tmp_path_factory.mktemp("models")
    command: list[str | Path] = [GENERATOR, "--seed", "1", "--out", directory]
    if not wants_all(pytestconfig):
        names = "|".join(re.escape(name.rpartition("-")[0]) for name in {*FEW_MODELS, *FEW_MEDIA})
        command += ["--arch", f"^({names})$"]
    subprocess.run(command, check=True, capture_output=True)
    yield directory
    shutil.rmtree(directory)
