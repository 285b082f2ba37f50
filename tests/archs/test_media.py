"""Prompts with images come back after kill -9, whatever a model's state is made of."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.archs.conftest import FEW_MODELS, FEW_REUSED, wants_all
from tests.archs.test_archs import SERVER, TOLERANCE_OF_BATCHES, difference, most_likely
from tests.server.conversations import NO_PRELOADING, flush, memory_status
from tests.server.gguf_files import copy_with_letters, write_projector
from tests.server.harness import STOCK_BINARY, Server

CONTEXT = 4096
REUSED = 0.9
TEXT = "The heron stands in the river and waits for a fish. " * 6
# Those whose images have one position.
REFUSED = {"qwen35-dense"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = FEW_MODELS if wants_all(metafunc.config) else [*FEW_REUSED, "llama-dense"]
    metafunc.parametrize("name", names)


def prompt(*shades: int, end: str = "") -> dict[str, Any]:
    """Texts with a picture of one colour behind each."""
    pictures = [b"P6 16 16 255\n" + bytes([shade]) * (16 * 16 * 3) for shade in shades]
    return {
        "prompt_string": "".join(f"{shade} {TEXT}<__media__>" for shade in shades) + TEXT + end,
        "multimodal_data": [base64.b64encode(picture).decode() for picture in pictures],
    }


def ask(server: Server, asked: dict[str, Any]) -> dict[str, Any]:
    marker = server.get("/props").json()["media_marker"]
    own = {**asked, "prompt_string": asked["prompt_string"].replace("<__media__>", marker)}
    body = {"prompt": own, "n_predict": 4, "temperature": 0, "ignore_eos": True, "n_probs": 10}
    response = server.post("/completion", body | {"return_tokens": True, "atlas": {}})
    assert response.status_code == 200, server.log[-1500:]
    answer: dict[str, Any] = response.json()
    return answer


def test_comes_back(name: str, models: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    width = copy_with_letters(models / f"{name}.gguf", model, CONTEXT)
    options: list[str | Path] = [*SERVER, "--mmproj", write_projector(tmp_path / "mmproj.gguf", width)]
    memory: list[str | Path] = ["--atlas-memory-path", tmp_path / "memory", *NO_PRELOADING]
    with Server([*options, *memory], directory=tmp_path, model=model) as server:
        if name in REFUSED:
            assert "one position" in memory_status(server)["problem"]
            return
        first = ask(server, prompt(10, 100, 200))
        flush(server)
        server.kill()
        server.start()
        again = ask(server, prompt(10, 100, 200, end="And then it flies away."))
        assert again["timings"]["cache_n"] >= REUSED * first["timings"]["prompt_n"]
        other = ask(server, prompt(10, 101, 200))
        assert other["timings"]["cache_n"] < 0.6 * first["timings"]["prompt_n"]
    with Server(options, directory=tmp_path, model=model, binary=STOCK_BINARY) as stock:
        for answer, asked in (
            (again, prompt(10, 100, 200, end="And then it flies away.")),
            (other, prompt(10, 101, 200)),
        ):
            expected = ask(stock, asked)
            assert difference(most_likely(answer)[0], most_likely(expected)[0]) <= TOLERANCE_OF_BATCHES
