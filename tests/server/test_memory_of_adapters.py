"""State computed under LoRA adapters comes back under the same ones at the same scales, and no others."""

from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    ASK_NAME,
    COLD,
    ONE_THREAD,
    Conversation,
    chat,
    flush,
    kill_and_start,
    memory_options,
    memory_status,
    tokenize,
)
from tests.server.gguf_files import write_lora
from tests.server.harness import STOCK_BINARY, Server

PROMPT = "garden river stone yellow green morning letter answer " * 12
# Shorter than what is not worth looking up.
MISSED = 15


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "one.gguf")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "other.gguf", layer=2)


def scaled(*scales: float) -> list[dict[str, float]]:
    return [{"id": number, "scale": scale} for number, scale in enumerate(scales)]


def complete(server: Server, prompt: Any = PROMPT, **fields: Any) -> tuple[str, int]:
    """Text, and how many tokens of the prompt were reused."""
    body = {"prompt": prompt, "temperature": 0, "n_predict": 12, "ignore_eos": True, **fields}
    answer = server.post("/completion", body).json()
    return answer["content"], answer["timings"]["cache_n"]


def is_whole(server: Server, reused: int, prompt: str = PROMPT) -> bool:
    return reused >= len(tokenize(server, prompt)) - 1


def test_comes_back_after_kill_9(start_server: StartServer, one: Path, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), "--lora", one])
    assert "problem" not in memory_status(server)
    text, _ = complete(server)
    flush(server)
    kill_and_start(server)
    again, reused = complete(server)
    assert is_whole(server, reused)
    assert again == text
    stock = start_server(["--lora", one], binary=STOCK_BINARY)
    assert complete(stock, **COLD)[0] == text


def test_scales_are_apart(start_server: StartServer, one: Path, tmp_path: Path) -> None:
    """Each has what was computed under it, and only that; in turns, so that no slot has it."""
    server = start_server([*memory_options(tmp_path), "-np", "1", "--lora", one])
    scales = (0.0, 0.5, 1.0)
    texts = {}
    for scale in scales:
        texts[scale], reused = complete(server, lora=scaled(scale))
        assert reused == 0
    assert len(set(texts.values())) == len(scales)
    flush(server)
    kill_and_start(server)
    for scale in (*scales, *scales):
        text, reused = complete(server, lora=scaled(scale))
        assert is_whole(server, reused)
        assert text == texts[scale]


def test_a_scale_of_the_server(start_server: StartServer, one: Path, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), "-np", "1", "--lora", one])
    half, _ = complete(server, lora=scaled(0.5))
    whole, _ = complete(server)
    for scale, expected in ((0.5, half), (1.0, whole), (0.5, half)):
        server.post("/lora-adapters", scaled(scale)).raise_for_status()
        text, reused = complete(server)
        assert text == expected
        assert is_whole(server, reused)


def test_without_the_adapter_it_is_the_models_own(
    start_server: StartServer, one: Path, tmp_path: Path
) -> None:
    """State of the model alone is found with an adapter at 0."""
    server = start_server(memory_options(tmp_path))
    text, _ = complete(server)
    for options in (["--lora-scaled", f"{one}:0"], []):
        server.stop()
        server = start_server([*memory_options(tmp_path), *options])
        again, reused = complete(server)
        assert is_whole(server, reused)
        assert again == text
    server.stop()
    server = start_server([*memory_options(tmp_path), "--lora", one])
    changed, reused = complete(server)
    assert reused == 0
    assert changed != text


def test_adapters_are_known_by_their_content(
    start_server: StartServer, one: Path, other: Path, tmp_path: Path
) -> None:
    """Not by their place on the command line, nor by their names."""
    server = start_server([*memory_options(tmp_path), "--lora", f"{one},{other}"])
    first, _ = complete(server, lora=scaled(1, 0))
    second, _ = complete(server, lora=scaled(0, 1))
    assert first != second
    server.stop()
    renamed = one.rename(tmp_path / "renamed.gguf")
    server = start_server([*memory_options(tmp_path), "--lora", f"{other},{renamed}"])
    for scales, expected in (((0, 1), first), ((1, 0), second)):
        text, reused = complete(server, lora=scaled(*scales))
        assert text == expected
        assert is_whole(server, reused)
    assert complete(server)[1] == 0  # of both at once there is nothing


def test_one_that_begins_within_the_prompt(start_server: StartServer, tmp_path: Path) -> None:
    """What is before its invocation is the model's own; what is behind is kept for nobody."""
    server = start_server(memory_options(tmp_path))
    invocation = " letter answer garden river"
    tokens = tokenize(server, PROMPT + invocation)[len(tokenize(server, PROMPT)) :]
    own, _ = complete(server)
    server.stop()
    adapter = write_lora(tmp_path / "late.gguf", begins_at=tokens)
    options = [*memory_options(tmp_path), "-np", "1", "--lora", adapter]
    server = start_server(options)
    asked = f"{PROMPT}{invocation} and so on, and so on, and so on, and so on."
    text, reused = complete(server, asked)
    assert reused >= len(tokenize(server, PROMPT)) - MISSED
    stock = start_server(["-np", "1", "--lora", adapter], binary=STOCK_BINARY)
    assert complete(stock, asked)[0] == text
    flush(server)
    kill_and_start(server)
    without, reused = complete(server, asked, lora=scaled(0))
    assert reused <= len(tokenize(server, PROMPT + invocation))
    assert without == complete(stock, asked, lora=scaled(0), **COLD)[0]
    assert own


def test_scales_that_change_between_turns(start_server: StartServer, one: Path, tmp_path: Path) -> None:
    options = ["--lora", one]
    servers = [
        start_server([*memory_options(tmp_path), *options]),
        start_server([*ONE_THREAD, *options], binary=STOCK_BINARY),
    ]
    ours: list[str] = []
    expected: list[str] = []
    # stock is right where it reuses nothing
    ways: list[dict[str, Any]] = [{}, COLD]
    for server, answers, fields in zip(servers, (ours, expected), ways, strict=True):
        told = Conversation(10)
        for scale in (1, 0, 0.5):
            server.post("/lora-adapters", [{"id": 0, "scale": scale}]).raise_for_status()
            other = [{"id": 0, "scale": 1 - scale}]
            answers.append(chat(server, told.asking(ASK_CITY), **fields).text)
            answers.append(chat(server, told.asking(ASK_CITY), lora=other, **fields).text)
            answers.append(told.ask(server, ASK_NAME, **fields).text)
    assert ours == expected
    assert len(set(ours)) > 2, "the adapter changes no answer"
