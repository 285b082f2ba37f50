"""What the memory cannot keep is refused by name, and completions are computed as by stock."""

import re
import subprocess
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
from tests.server.harness import REPOSITORY, STOCK_BINARY, Server

Options = list[str | Path]


@dataclass(frozen=True)
class Refusal:
    """Options of a server, made in a directory, and what the reason names."""

    options: Callable[[Path], Options]
    name: str


REFUSALS = {
    "embedding": Refusal(lambda _: ["--embedding", "--pooling", "mean"], "embeds"),
}


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
    status = server.get("/v1/atlas/status").json()
    assert status["status"] == "healthy"  # it is as the operator asked for
    assert status["notices"] == [f"The memory of this model's state is off: {problem}"]
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


def speculation_types(server: Server) -> list[str]:
    """All that --spec-type takes, by the help."""
    text = subprocess.run([server.command[0], "--help"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"--spec-type\s+(none,[a-z0-9,-]+)", text)
    assert found
    return found[1].split(",")[1:]


def test_every_speculation_is_in_the_docs(start_server: StartServer, tmp_path: Path) -> None:
    memory = (REPOSITORY / "docs/memory.md").read_text(encoding="utf-8")
    kinds = speculation_types(Server(directory=tmp_path))
    assert [kind for kind in kinds if f"`{kind}`" not in memory] == []
    for kind in (kind for kind in kinds if kind.startswith("ngram-")):
        server = start_server([*memory_options(tmp_path), "--spec-type", kind])
        assert "problem" not in memory_status(server)
        server.kill()


class TestEmbedding:
    @pytest.mark.parametrize(
        ("option", "path", "body"),
        [
            ("--embedding", "/embedding", {"content": "a text"}),
            ("--reranking", "/rerank", {"query": "a text", "documents": ["another"]}),
        ],
    )
    def test_is_refused_by_name(
        self, start_server: StartServer, tmp_path: Path, option: str, path: str, body: dict[str, Any]
    ) -> None:
        server = start_server([*memory_options(tmp_path), option])
        assert server.post(path, body).status_code in (200, 500)
        problem = memory_status(server)["problem"]
        assert "embeds" in problem
        assert server.logged(f"Memory of this model's state is off: {problem}")

    def test_leaves_nothing_in_the_prompt_cache(self, start_server: StartServer, tmp_path: Path) -> None:
        """Stock keeps the state of idle slots; of a completion it may be asked for again."""
        saved = "__TEST_TAG_CACHE_IDLE_SLOT__"
        server = start_server([*memory_options(tmp_path), "--embedding", "--pooling", "mean", "-lv", "10"])
        for number in range(6):
            server.post("/embedding", {"content": f"{number} is a number"}).raise_for_status()
        for number in range(2):  # in two slots, so that the first one's is idle
            Conversation(number).ask(server)
        assert server.logged(saved)
        assert server.log.count(saved) == 1
