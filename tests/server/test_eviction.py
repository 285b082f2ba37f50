"""What the layers keep when they are full, through the real binary."""

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from atlas_cli.simulation.replay import replay
from atlas_cli.simulation.trace import TraceRequest
from tests.server.conftest import StartServer
from tests.server.conversations import NO_PRELOADING
from tests.server.gguf_files import WIDE_KV_BYTES, WIDE_VOCABULARY, write_wide_model
from tests.server.harness import Server

BLOCK = 16
# 2 MiB of KV.
TURN = 64
MIB = 1 << 20
RAM, DISK = 64 * MIB, 256 * MIB
CONTEXT = 2048
# Of all conversations in test_budgets, by their KV.
TOTAL = 2048 * MIB
SEED = 20261122


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wide_model(tmp_path_factory.mktemp("model") / "wide.gguf", CONTEXT)


def arguments(memory: Path, *, ram: int = RAM, disk: int = DISK, slots: int = 1) -> list[str | Path]:
    return [
        "-np", str(slots), "-c", str(slots * CONTEXT), "-t", "1", "-b", "2048", "-ub", "512",
        "--atlas-memory-path", memory, "--atlas-block-tokens", str(BLOCK),
        "--atlas-l1-cache-size", str(ram), "--atlas-l2-cache-size", str(disk),
    ]  # fmt: skip


def complete(server: Server, prompt: Sequence[int], **atlas: Any) -> int:
    """Computes a prompt; the tokens that were reused."""
    body = {"prompt": list(prompt), "n_predict": 0, "temperature": 0, "atlas": atlas}
    response = server.post("/completion", body)
    assert response.status_code == 200, response.text
    reused: int = response.json()["atlas"]["reused_tokens"]
    return reused


def memory_of(server: Server) -> dict[str, Any]:
    memory: dict[str, Any] = server.get("/v1/atlas/status").json()["data"]["memory"]
    return memory


def flush(server: Server) -> None:
    """Lets the writer catch up: what waits for the disk is still found."""
    response = server.post("/v1/atlas/memory/flush", {"timeout_s": 60})
    assert response.status_code == 200, response.text


def tokens(seed: int, count: int) -> list[int]:
    chooser = random.Random(seed)
    return [chooser.randrange(WIDE_VOCABULARY) for _ in range(count)]


def file_sizes(directory: Path) -> Iterator[int]:
    for path in directory.glob("*/*/*.kv"):
        with suppress(FileNotFoundError):
            yield path.stat().st_size


def conversations() -> Iterator[list[tuple[int, int]]]:
    """Prompts as (seed of a block, its number): conversations of which the recent and the popular go on."""
    chooser = random.Random(SEED)
    going: list[list[tuple[int, int]]] = []
    computed = 0
    while computed < TOTAL:
        if not going or chooser.random() < 0.35:
            going.append([(len(going), 0)])
            chat = going[-1]
        else:
            # recency with a long tail: what an LRU layer keeps in part
            chat = going[-1 - min(int(chooser.expovariate(1 / 12)), len(going) - 1)]
        grown = min(len(chat) + chooser.randint(1, 6), CONTEXT // BLOCK - 1)
        chat += [(chat[0][0], number) for number in range(len(chat), grown)]
        computed += len(chat) * BLOCK * WIDE_KV_BYTES
        yield list(chat)


@pytest.mark.parametrize("strategy", ["lru", "adaptive"])
def test_budgets_hold_and_hits_are_those_of_the_simulator(
    start_server: StartServer, wide_model: Path, tmp_path: Path, strategy: str
) -> None:
    server = start_server(arguments(tmp_path / "memory"), model=wide_model)
    over: list[dict[str, Any]] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            before = memory_of(server)
            files = sum(file_sizes(tmp_path / "memory" / "blocks"))
            memory = memory_of(server)
            # What was written while the files were counted may stand beside what it replaced.
            extra = memory["written"]["bytes"] - before["written"]["bytes"] + 2 * BLOCK * WIDE_KV_BYTES
            if memory["ram"]["bytes"] > RAM or memory["disk"]["bytes"] > DISK or files > DISK + extra:
                over.append(memory | {"files": files, "extra": extra})

    sampler = threading.Thread(target=sample)
    sampler.start()
    trace, asked, reused = [], 0, 0
    try:
        for chat in conversations():
            prompt = [token for seed, number in chat for token in tokens(seed * 1000 + number, BLOCK)]
            found = complete(server, prompt, cache_strategy=strategy)
            # One token is always computed, for its logits.
            reused += -(-found // BLOCK) * BLOCK
            asked += len(prompt)
            keys = tuple(hash((SEED, *block)) & (2**64 - 1) or 1 for block in chat)
            trace.append(TraceRequest(keys, len(prompt), BLOCK))
            if len(trace) % 8 == 0:
                flush(server)
    finally:
        done.set()
        sampler.join()
    assert over == []
    memory = memory_of(server)
    assert memory["ram"]["evicted"] > 0
    assert memory["disk"]["evicted"] > 0
    assert memory["written"]["drops"] == 0
    simulated = replay(trace, strategy, DISK, BLOCK * WIDE_KV_BYTES).token_rate
    print(f"{strategy}: {reused / asked:.4f} of the tokens reused, {simulated:.4f} in the simulator")
    assert reused / asked == pytest.approx(simulated, abs=0.02)


def test_a_scan_by_lfu_does_not_evict_an_lru_chat(
    start_server: StartServer, wide_model: Path, tmp_path: Path
) -> None:
    server = start_server(arguments(tmp_path / "memory", disk=32 * MIB, ram=32 * MIB), model=wide_model)
    chat = tokens(1, 4 * TURN)
    complete(server, chat, cache_strategy="lru")
    often = tokens(2, 2 * TURN)
    for seed in range(100, 104):
        complete(server, often, cache_strategy="lfu")
        complete(server, tokens(seed, TURN), cache_strategy="lfu")
    for seed in range(200, 240):  # 80 MiB
        complete(server, tokens(seed, TURN), cache_strategy="lfu")
    flush(server)
    assert complete(server, [*chat, 1], cache_strategy="lru") == len(chat)
    for seed in range(300, 340):
        complete(server, tokens(seed, TURN), cache_strategy="lru")
    flush(server)
    assert complete(server, [*often, 1], cache_strategy="lfu") == len(often)
    assert complete(server, [*chat, 1], cache_strategy="lru") == 0


@pytest.mark.parametrize("strategy", ["lru", "lfu", "adaptive"])
def test_side_calls_do_not_cost_the_main_chat(
    start_server: StartServer, wide_model: Path, tmp_path: Path, strategy: str
) -> None:
    server = start_server(arguments(tmp_path / "memory", ram=24 * MIB, disk=0), model=wide_model)
    main = tokens(1, 4 * TURN)
    complete(server, main, cache_strategy=strategy)
    for turn in range(60):  # each side-call takes 2 MiB of the 24
        complete(server, tokens(1000 + turn, TURN), cache_strategy=strategy)
        main = main[: 4 * TURN] + tokens(2000 + turn, 8)
        assert complete(server, main, cache_strategy=strategy) >= 4 * TURN


def test_first_layer_only(start_server: StartServer, wide_model: Path, tmp_path: Path) -> None:
    server = start_server([*arguments(tmp_path / "memory"), *NO_PRELOADING], model=wide_model)
    complete(server, tokens(1, 4 * TURN), memory_layers=1)
    complete(server, tokens(2, 4 * TURN))
    flush(server)
    assert memory_of(server)["disk"]["entries"] == 4 * TURN // BLOCK
    server.kill()
    server.start()
    server.wait_until(lambda: memory_of(server)["disk"]["index_complete"])
    assert complete(server, [*tokens(1, 4 * TURN), 1]) == 0
    assert complete(server, [*tokens(2, 4 * TURN), 1], memory_layers=1) == 0
    complete(server, tokens(3, TURN))
    assert complete(server, [*tokens(2, 4 * TURN), 2]) == 4 * TURN
