"""KV events in vLLM's format: a router that follows them knows what blocks the server has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import ASK_CITY, ONE_THREAD, Conversation, flush, render, tokenize
from tests.server.harness import Server, free_port
from tests.server.kv_subscriber import Index, Subscriber, blocks_on_disk

N_ITEMS = 60  # two blocks and more
TOPIC = "kv@one"

Start = Callable[..., Server]


@pytest.fixture
def addresses() -> tuple[str, str]:
    return f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def start(start_server: StartServer, tmp_path: Path, addresses: tuple[str, str]) -> Start:
    def start(*more: str | Path, **options: Any) -> Server:
        events = ["--atlas-kv-events", addresses[0], "--atlas-kv-events-replay", addresses[1]]
        paths = ["--atlas-memory-path", tmp_path / "memory", "--atlas-kv-events-topic", TOPIC]
        return start_server([*ONE_THREAD, *paths, *events, *more], **options)

    return start


def test_a_subscriber_knows_the_blocks(start: Start, tmp_path: Path, addresses: tuple[str, str]) -> None:
    memory = tmp_path / "memory"

    def agrees(index: Index) -> bool:
        return index.blocks("DISK") == blocks_on_disk(memory)

    server = start()
    conversations = [Conversation(number, N_ITEMS) for number in range(3)]
    with Subscriber(*addresses, TOPIC) as router:
        for conversation in conversations:
            conversation.ask(server)
        flush(server)
        router.wait_until(agrees)
        assert len(blocks_on_disk(memory)) >= 2 * len(conversations)
        assert router.index.blocks("CPU") == router.index.blocks("DISK")
        texts = router.index.texts("DISK")
        for conversation in conversations:
            prompt = tokenize(server, render(server, conversation.messages[:-1]))
            assert any(text == prompt[: len(text)] and len(text) >= 512 for text in texts)
        # a session that is deleted takes its blocks along
        conversations[0].ask(server, ASK_CITY, atlas={"session_id": "ada"})
        flush(server)
        before = blocks_on_disk(memory)
        deleted = server.post("/v1/atlas/memory/delete", {"context_id": "ada"}).json()
        assert deleted["data"]["freed_bytes"] > 0
        flush(server)
        assert blocks_on_disk(memory) < before
        router.wait_until(agrees)
        assert router.numbers == list(range(len(router.numbers)))
        facts = server.get("/v1/atlas/status").json()["data"]["kv_events"]
        assert facts["blocks"] == sum(map(len, router.index.mediums.values()))
        assert facts["messages"] == len(router.numbers)

    server.stop()
    server.start()
    with Subscriber(*addresses, TOPIC) as router:
        router.wait_until(agrees)
        assert router.index.cleared == 1  # by the first event, so that what the last run told is void
        assert router.numbers[0] == 0


def test_evicted_blocks_are_told(start: Start, tmp_path: Path, addresses: tuple[str, str]) -> None:
    server = start(
        "--atlas-kv-events-format",
        "arrays",
        "--atlas-l1-cache-size",
        "2000000",
        "--atlas-l2-cache-size",
        "4000000",
        "-np",
        "1",
    )
    with Subscriber(*addresses, TOPIC) as router:
        for number in range(8):
            Conversation(number, N_ITEMS).ask(server)
        flush(server)
        router.wait_until(lambda index: index.blocks("DISK") == blocks_on_disk(tmp_path / "memory"))
        assert router.index.removed > 0
        assert router.index.blocks("CPU") != router.index.blocks("DISK")


def test_what_is_not_right_is_said(start_server: StartServer, tmp_path: Path) -> None:
    options = ["--atlas-memory-path", tmp_path / "memory", "--atlas-kv-events", "tcp://no-such-host:1"]
    server = start_server(options)
    server.wait_until(lambda: problems(server))
    (problem,) = problems(server)
    assert problem.startswith("KV events are not told: nothing can be bound to tcp://no-such-host:1")
    off = start_server(["--atlas-kv-events", "tcp://127.0.0.1:1"])
    (problem,) = problems(off)
    assert problem.startswith("there are no KV events: memory persistence is off")


def problems(server: Server) -> list[str]:
    found: list[str] = server.get("/v1/atlas/status").json()["problems"]
    return found
