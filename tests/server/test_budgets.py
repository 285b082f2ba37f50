"""What the memory takes stays within its budgets, whoever comes back at once and whatever a start finds."""

import random
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.server.completions import ENDLESS_OPTIONS, endless
from tests.server.conftest import StartServer
from tests.server.conversations import NO_PRELOADING, flush, memory_status
from tests.server.gguf_files import WIDE_VOCABULARY, write_wide_model
from tests.server.harness import Server

MIB = 1 << 20
CONTEXT = 1024
LENGTH = 768
CONVERSATIONS = 8
LAYER_1, ALLOWANCE = 16 * MIB, 64 * MIB
HELD_AT_ONCE = 2
"""Of 24 MiB each, and a little for tokens; a third would have to find 8 of them in layer 1."""


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wide_model(tmp_path_factory.mktemp("model") / "wide.gguf", CONTEXT)


def options(directory: Path, *more: str) -> list[str | Path]:
    return [
        "-np", "1", "-c", str(CONTEXT), "-t", "1",
        "--atlas-memory-path", directory / "memory", *NO_PRELOADING, *more,
    ]  # fmt: skip


def tokens(seed: int, count: int = LENGTH) -> list[int]:
    chooser = random.Random(seed)
    return [chooser.randrange(WIDE_VOCABULARY) for _ in range(count)]


def ask(server: Server, prompt: Any, **fields: Any) -> Any:
    response = server.post("/completion", {"prompt": prompt, "n_predict": 1, **fields}, timeout=120)
    assert response.status_code == 200, response.text
    return response.json()


def held(server: Server) -> Any:
    return memory_status(server)["ram"]["held"]


def resident_bytes(server: Server, field: str = "VmRSS") -> int:
    assert server.process is not None
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.fixture
def returning(start_server: StartServer, tmp_path: Path, wide_model: Path, request: Any) -> Server:
    """A server that has been started anew, with conversations of 24 MiB each on its disk."""
    layer_1 = ["--atlas-l1-cache-size", str(LAYER_1)]
    first = start_server(options(tmp_path, *layer_1), model=wide_model)
    for seed in range(CONVERSATIONS):
        ask(first, tokens(seed))
    flush(first)
    first.stop()
    more = [*ENDLESS_OPTIONS, *getattr(request, "param", [])]
    server = start_server(options(tmp_path, *layer_1, *more), model=wide_model)
    server.wait_until(lambda: memory_status(server)["disk"]["index_complete"])
    return server


def return_all(server: Server, pool: ThreadPoolExecutor) -> list[Future[Any]]:
    """Without `atlas` objects, as those would wait for the pool's only context instead of the slot."""
    return [pool.submit(ask, server, [*tokens(seed), 1, 2]) for seed in range(CONVERSATIONS)]


def test_what_waits_for_a_slot_is_bounded(returning: Server) -> None:
    ask(returning, tokens(100, CONTEXT - 2), cache_prompt=False)  # what computing takes is taken
    before = resident_bytes(returning)
    with ThreadPoolExecutor(CONVERSATIONS) as pool:
        with endless(returning, prompt=[1, 2, 3]):
            answers = return_all(returning, pool)
            returning.wait_until(lambda: held(returning)["waiting"] == CONVERSATIONS - HELD_AT_ONCE)
            now = memory_status(returning)["ram"]
            assert now["bytes"] <= now["budget"] == LAYER_1
            assert 0 < now["held"]["bytes"] <= now["held"]["limit"] == ALLOWANCE
        reused = [answer.result()["timings"]["cache_n"] for answer in answers]
    assert min(reused) >= LENGTH - 1, "who waits computes nothing"
    assert held(returning) == {
        "bytes": 0, "limit": ALLOWANCE, "waiting": 0, "waited": CONVERSATIONS - HELD_AT_ONCE,
    }  # fmt: skip
    # buffers, stacks of threads, and a conversation on its way into the slot come on top
    assert resident_bytes(returning, "VmHWM") <= before + LAYER_1 + ALLOWANCE + 40 * MIB


@pytest.mark.parametrize("returning", [["--atlas-pool-timeout-ms", "200"]], indirect=True)
def test_who_waited_too_long_computes(returning: Server) -> None:
    with ThreadPoolExecutor(CONVERSATIONS) as pool:
        with endless(returning, prompt=[1, 2, 3]):
            answers = return_all(returning, pool)
            returning.wait_until(lambda: held(returning)["waited"] == CONVERSATIONS - HELD_AT_ONCE)
            returning.wait_until(lambda: held(returning)["waiting"] == 0)
        reused = [answer.result()["timings"]["cache_n"] for answer in answers]
    n_computed = CONVERSATIONS - HELD_AT_ONCE
    assert sum(one < LENGTH - 1 for one in reused) == n_computed
    assert memory_status(returning)["results"]["too_many_at_once"] == n_computed
    metrics = returning.get("/v1/atlas/metrics/prometheus").text
    assert f'atlas_pool_wait_seconds_count{{for="memory"}} {n_computed}' in metrics
    assert returning.get("/v1/atlas/status").json()["data"]["latency_budget_breaches"] < CONVERSATIONS


@pytest.mark.parametrize("returning", [["--atlas-pool-timeout-ms", "3600000"]], indirect=True)
def test_a_request_does_not_wait_for_itself(returning: Server) -> None:
    answers = ask(returning, [[*tokens(seed), 1, 2] for seed in range(CONVERSATIONS)])
    reused = [answer["timings"]["cache_n"] for answer in answers]
    assert sum(one >= LENGTH - 1 for one in reused) >= HELD_AT_ONCE
    assert held(returning)["waited"] == 0


class TestSmallerDisk:
    SMALL = 64 * MIB

    def test_named_conversations_stay(
        self, start_server: StartServer, tmp_path: Path, wide_model: Path
    ) -> None:
        server = start_server(options(tmp_path), model=wide_model)
        for name in ("pinned", "live"):
            ask(server, tokens(len(name), 512), atlas={"session_id": name})
        for seed in range(10, 22):
            ask(server, tokens(seed))
        response = server.post("/v1/atlas/memory/pin", {"session_id": "pinned"})
        assert response.status_code == 200, response.text
        flush(server)
        assert server.stop() == 0
        smaller = ["--atlas-l1-cache-size", "1", "--atlas-l2-cache-size", str(self.SMALL)]
        server = start_server(options(tmp_path, *smaller), model=wide_model)
        server.wait_until(lambda: memory_status(server)["disk"]["bytes"] <= self.SMALL)
        assert memory_status(server)["disk"]["evicted"] > 0
        for name in ("pinned", "live"):
            answer = ask(server, [*tokens(len(name), 512), 1], atlas={"session_id": name})["atlas"]
            assert answer["reused_tokens"] >= 511
        flush(server)
        server.wait_until(
            lambda: sum(path.stat().st_size for path in tmp_path.rglob("*.kv")) <= self.SMALL,
        )


def test_index(start_server: StartServer, tmp_path: Path) -> None:
    budget = MIB
    small = ["--atlas-block-tokens", "16", "--atlas-index-size", str(budget)]
    server = start_server(options(tmp_path, *small))
    for seed in range(24):
        chooser = random.Random(seed)
        ask(server, [chooser.randrange(200, 400) for _ in range(CONTEXT - 8)])
    flush(server)
    server.wait_until(lambda: memory_status(server)["index"]["bytes"] <= budget)
    found = memory_status(server)
    assert found["index"]["budget"] == budget
    assert found["index"]["bytes"] > budget / 2
    assert found["disk"]["evicted"] > 0
    metrics = server.get("/v1/atlas/metrics/prometheus").text
    samples = {one.name: one.value for family in parse_text(metrics) for one in family.samples}
    assert samples["atlas_index_budget_bytes"] == budget


def test_no_limit_is_null(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(options(tmp_path, "--cache-ram", "-1", "--atlas-l2-cache-size", "0"))
    found = memory_status(server)
    assert found["ram"]["budget"] is None
    assert found["ram"]["held"]["limit"] is None
    assert found["pinned"]["limit"] is None
    assert 'atlas_layer_budget_bytes{layer="ram"} +Inf' in server.get("/v1/atlas/metrics/prometheus").text
    with server.client.stream("GET", "/v1/atlas/metrics/stream?interval=10") as stream:
        event = next(line for line in stream.iter_lines() if line.startswith("data: "))
    assert '"budget_bytes":null' in event


def test_what_does_not_fit_beside_others_waits(start_server: StartServer, tmp_path: Path) -> None:
    """Slots share the cells of one KV cache when nobody says how many slots there are."""
    context, length, answer = 2048, 600, 48
    server = start_server(options(tmp_path, "-np", "-1", "-c", str(context)))
    assert server.get("/v1/atlas/status").json()["data"]["context_pool_size"] > context // (length + answer)

    def compute(seed: int) -> Any:
        chooser = random.Random(seed)
        prompt = [chooser.randrange(200, 400) for _ in range(length + seed)]
        return ask(server, prompt, n_predict=answer, ignore_eos=True)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(compute, range(12)))
    assert [one["tokens_predicted"] for one in answers] == [answer] * 12
