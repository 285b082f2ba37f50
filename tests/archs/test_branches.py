"""Conversations that share a system message: each reuses it to where it parts from the others."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archs.conftest import FEW_REUSED, MANY_REUSED, wants_all
from tests.archs.test_archs import SERVER, TOKENS, TOLERANCE_OF_BATCHES, ask, distance
from tests.server.conversations import NO_PRELOADING, flush
from tests.server.gguf_files import copy_with_letters
from tests.server.harness import STOCK_BINARY, Server

SYSTEM_TOKENS = 1200
# No longer than the last but one checkpoint of a prompt is before its end.
TURNS = [40, 100, 60, 20]
LAST_CHECKPOINT_BUT_ONE = 128
# A place so close to one that has a checkpoint gets none of its own.
NEAR = 16
# What the template has around a message, with what begins the answer, in letters.
AROUND_MESSAGE = 60
OPTIONS = [*SERVER, "-np", "1", "-c", "8192"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = [*MANY_REUSED] if wants_all(metafunc.config) else [*FEW_REUSED, "mamba-dense", "deepseek4-moe"]
    metafunc.parametrize("name", names)


@pytest.fixture
def model(name: str, models: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "model.gguf"
    copy_with_letters(models / f"{name}.gguf", path, 8192)
    yield path
    path.unlink()


def memory(directory: Path) -> list[str | Path]:
    return ["--atlas-memory-path", directory / "memory", *NO_PRELOADING]


def test_raw_prompts(model: Path, tmp_path: Path) -> None:
    numbers = random.Random(1)
    system = numbers.choices(TOKENS, k=SYSTEM_TOKENS)
    prompts = [system + numbers.choices(TOKENS, k=length) for length in TURNS]
    with Server([*OPTIONS, *memory(tmp_path)], directory=tmp_path, model=model) as server:
        first, second, third = (ask(server, prompt)["timings"]["cache_n"] for prompt in prompts[:3])
        assert first == 0
        # nobody knew then where prompts would part
        assert second >= SYSTEM_TOKENS - LAST_CHECKPOINT_BUT_ONE
        assert third >= SYSTEM_TOKENS - NEAR
        flush(server)
        server.kill()
        server.start()
        fourth = ask(server, prompts[3])
        assert fourth["timings"]["cache_n"] >= SYSTEM_TOKENS - NEAR
    with Server(OPTIONS, directory=tmp_path, model=model, binary=STOCK_BINARY) as stock:
        assert distance(fourth, ask(stock, prompts[3])) <= TOLERANCE_OF_BATCHES


def test_a_changed_last_line(model: Path, tmp_path: Path) -> None:
    """Without a template, so that nothing says where messages are."""
    numbers = random.Random(2)
    prompt = numbers.choices(TOKENS, k=1000)
    changed = prompt[:-30] + numbers.choices(TOKENS, k=30)
    with Server([*OPTIONS, *memory(tmp_path)], directory=tmp_path, model=model) as server:
        ask(server, prompt)
        # of a chunked window, upstream computes the token before anew
        assert ask(server, changed)["timings"]["cache_n"] >= len(prompt) - 32 - 1


def chat(server: Server, *turns: str) -> tuple[int, int]:
    """How many tokens of the prompt were reused, and all of them."""
    roles = ["system", *["user", "assistant"] * len(turns)]
    messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
    body: dict[str, Any] = {"messages": messages, "max_tokens": 6, "temperature": 0}
    answer = server.post("/v1/chat/completions", body | {"ignore_eos": True})
    assert answer.status_code == 200, answer.text
    timings = answer.json()["timings"]
    return timings["cache_n"], timings["cache_n"] + timings["prompt_n"]


def test_chats(model: Path, tmp_path: Path) -> None:
    letters = random.Random(1)

    def text(length: int) -> str:
        return "".join(letters.choices("abcdefghij klm", k=length))

    system = text(SYSTEM_TOKENS)
    template = ["--jinja", "--chat-template", "chatml"]
    with Server([*OPTIONS, *template, *memory(tmp_path)], directory=tmp_path, model=model) as server:
        assert chat(server, system, text(300))[0] == 0
        # the template says where the user's message begins
        assert chat(server, system, text(200))[0] >= SYSTEM_TOKENS
        assert chat(server, system, text(250))[0] >= SYSTEM_TOKENS
        told, question = [system, text(40), "an answer"], text(200)
        _, length = chat(server, *told, question)
        # another question in the same place
        assert chat(server, *told, text(180))[0] >= length - len(question) - AROUND_MESSAGE
        flush(server)
        server.kill()
        server.start()
        assert chat(server, system, text(150))[0] >= SYSTEM_TOKENS
        assert chat(server, *told, text(190))[0] >= length - len(question) - AROUND_MESSAGE
