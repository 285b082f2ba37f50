"""What the memory cannot keep is refused by name, and completions are computed as by stock."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    ASK_NAME,
    GREEDY,
    ONE_THREAD,
    Answer,
    Conversation,
    block_files,
    chat,
    flush,
    memory_options,
    memory_status,
)
from tests.server.gguf_files import write_lora, write_projector
from tests.server.harness import MODEL, STOCK_BINARY, Server

Options = list[str | Path]


@dataclass(frozen=True)
class Refusal:
    """Options of a server, made in a directory, and what the reason names."""

    options: Callable[[Path], Options]
    name: str


REFUSALS = {
    "lora": Refusal(lambda directory: ["--lora", write_lora(directory / "lora.gguf")], "LoRA"),
    "lora-not-applied": Refusal(
        lambda directory: ["--lora-init-without-apply", "--lora", write_lora(directory / "lora.gguf")], "LoRA"
    ),
    "draft-model": Refusal(lambda _: ["-md", MODEL, "--spec-type", "draft-simple"], "draft"),
    "speculation": Refusal(lambda _: ["--spec-type", "ngram-simple"], "speculative"),
    "projector": Refusal(
        lambda directory: ["--mmproj", write_projector(directory / "mmproj.gguf")], "multimodal projector"
    ),
}

PIXELS = bytes(range(192))
IMAGE = "data:image/x-portable-pixmap;base64," + base64.b64encode(b"P6 8 8 255\n" + PIXELS).decode()


@pytest.fixture(params=REFUSALS)
def refusal(request: pytest.FixtureRequest) -> Refusal:
    return REFUSALS[request.param]


def start_stock(start_server: StartServer, options: Options) -> Server:
    """Untouched upstream with the same options."""
    return start_server([*ONE_THREAD, *options], binary=STOCK_BINARY)


def ask_all(server: Server, conversations: list[Conversation], question: str) -> list[Answer]:
    return [told.ask(server, question) for told in conversations]


def test_is_named(refusal: Refusal, start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), *refusal.options(tmp_path)])
    problem = memory_status(server)["problem"]
    assert refusal.name in problem
    assert server.logged(f"Memory of this model's state is off: {problem}")
    body = {"messages": Conversation(0).asking(ASK_NAME), **GREEDY, "atlas": {}}
    atlas = server.post("/v1/chat/completions", body).json()["atlas"]
    assert atlas["degraded"] is True
    assert atlas["reason"].endswith(problem)


def test_is_computed_as_by_stock(refusal: Refusal, start_server: StartServer, tmp_path: Path) -> None:
    """With more conversations than slots, so that stock's own prompt cache takes part."""
    options = refusal.options(tmp_path)
    server = start_server([*memory_options(tmp_path), *options])
    stock = start_stock(start_server, options)
    ours, expected = ([Conversation(number, n_items=8) for number in range(4)] for _ in range(2))
    for question in (ASK_NAME, ASK_CITY):
        assert ask_all(server, ours, question) == ask_all(stock, expected, question)


def test_nothing_is_kept(refusal: Refusal, start_server: StartServer, tmp_path: Path) -> None:
    options = refusal.options(tmp_path)
    server = start_server([*memory_options(tmp_path), *options])
    told = Conversation(1)
    told.ask(server)
    flush(server)
    server.kill()
    server.start()
    assert told.ask(server, ASK_CITY).reused == 0
    assert not block_files(tmp_path)


def test_nothing_kept_before_is_used(refusal: Refusal, start_server: StartServer, tmp_path: Path) -> None:
    """The same model, without what is refused, has remembered the conversation."""
    server = start_server(memory_options(tmp_path))
    told = Conversation(2)
    told.ask(server)
    assert server.stop() == 0
    assert block_files(tmp_path)
    options = refusal.options(tmp_path)
    refusing = start_server([*memory_options(tmp_path), *options])
    stock = start_stock(start_server, options)
    answer = chat(refusing, told.asking(ASK_CITY))
    assert answer == chat(stock, told.asking(ASK_CITY))
    assert answer.reused == 0


def test_lora_scales_change_nothing_in_that(start_server: StartServer, tmp_path: Path) -> None:
    options = REFUSALS["lora"].options(tmp_path)
    servers = [
        start_server([*memory_options(tmp_path), *options]),
        start_stock(start_server, options),
    ]
    ours: list[Answer] = []
    expected: list[Answer] = []
    for server, answers in zip(servers, (ours, expected), strict=True):
        told = Conversation(10)
        for scale in (1, 0, 0.5):
            server.post("/lora-adapters", [{"id": 0, "scale": scale}]).raise_for_status()
            answers.append(chat(server, told.asking(ASK_CITY)))
            answers.append(chat(server, told.asking(ASK_CITY), lora=[{"id": 0, "scale": 1 - scale}]))
            answers.append(told.ask(server))
    assert ours == expected
    assert len({answer.text for answer in ours}) > 2, "the adapter changes no answer"
    flush(servers[0])
    assert not block_files(tmp_path)


def test_images_are_seen(start_server: StartServer, tmp_path: Path) -> None:
    options = REFUSALS["projector"].options(tmp_path)
    server = start_server([*memory_options(tmp_path), *options])
    stock = start_stock(start_server, options)
    told = Conversation(3, n_items=1)
    image = {"type": "image_url", "image_url": {"url": IMAGE}}
    content = [{"type": "text", "text": told.messages[0]["content"]}, image]
    messages = [{"role": "user", "content": content}, *told.asking(ASK_NAME)[1:]]

    def ask(asked: Server) -> tuple[Any, Any]:
        body = asked.post("/v1/chat/completions", {"messages": messages, **GREEDY}).json()
        return body["choices"][0]["message"], body["usage"]

    for _ in range(2):
        assert ask(server) == ask(stock)
    server.kill()
    server.start()
    assert ask(server)[1]["prompt_tokens_details"]["cached_tokens"] == 0


def test_embedding_is_refused_by_name(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), "--embedding"])
    assert server.post("/embedding", {"content": "a text"}).status_code == 200
    problem = memory_status(server)["problem"]
    assert "embeds" in problem
    assert server.logged(f"Memory of this model's state is off: {problem}")
