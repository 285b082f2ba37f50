"""KV that was computed under one scale of a LoRA adapter is not used under another."""

from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import COLD, ONE_THREAD
from tests.server.gguf_files import write_lora
from tests.server.harness import Server

LORA_PROMPT = "garden river stone yellow green morning letter answer " * 12


def complete(server: Server, **fields: Any) -> tuple[str, int]:
    """Text, and how many tokens of the prompt were reused."""
    body = {"prompt": LORA_PROMPT, "temperature": 0, "n_predict": 12, "ignore_eos": True, **fields}
    answer = server.post("/completion", body).json()
    return answer["content"], answer["timings"]["cache_n"]


def scaled(scale: float) -> list[dict[str, float]]:
    return [{"id": 0, "scale": scale}]


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> Server:
    options = ["-np", "1", "--lora", write_lora(tmp_path / "lora.gguf"), "--slot-save-path", tmp_path]
    return start_server([*ONE_THREAD, *options])


@pytest.fixture
def texts(server: Server) -> dict[float, str]:
    """What is computed under each scale."""
    computed = {scale: complete(server, lora=scaled(scale), **COLD)[0] for scale in (0.0, 0.5, 1.0)}
    assert len(set(computed.values())) == len(computed), "the adapter changes no answer"
    return computed


def test_scale_of_a_request(server: Server, texts: dict[float, str]) -> None:
    for scale in (1.0, 0.0, None, 0.5, None, 1.0, 0.0):
        fields = {} if scale is None else {"lora": scaled(scale)}
        assert complete(server, **fields)[0] == texts[1.0 if scale is None else scale]


def test_scale_of_the_server(server: Server, texts: dict[float, str]) -> None:
    for scale in (0.0, 1.0, 0.5, 0.0):
        server.post("/lora-adapters", scaled(scale)).raise_for_status()
        assert complete(server)[0] == texts[scale]
        assert complete(server, lora=scaled(1.0))[0] == texts[1.0]


def test_state_of_a_scale_comes_back(server: Server, texts: dict[float, str]) -> None:
    """From stock's prompt cache, which keeps what each was computed under."""
    complete(server)
    for scale in (0.0, 1.0, 0.0, 1.0):
        server.post("/lora-adapters", scaled(scale)).raise_for_status()
        text, reused = complete(server)
    assert (text, reused > 0) == (texts[1.0], True)


def test_slot_file(server: Server, texts: dict[float, str]) -> None:
    """It does not say under which scale it was computed; whoever loads it has set that."""
    complete(server)
    server.post("/slots/0?action=save", {"filename": "slot"}).raise_for_status()
    server.post("/slots/0?action=erase").raise_for_status()
    server.post("/slots/0?action=restore", {"filename": "slot"}).raise_for_status()
    text, reused = complete(server)
    assert (text, reused > 0) == (texts[1.0], True)
    server.post("/slots/0?action=restore", {"filename": "slot"}).raise_for_status()
    assert complete(server, lora=scaled(0.0))[0] == texts[0.0]
