"""What the server counts: a known load gives exactly its numbers."""

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.server.completions import BODIES, ENDLESS_OPTIONS, complete, endless
from tests.server.conftest import StartServer
from tests.server.conversations import NO_PRELOADING
from tests.server.harness import Server

PROMETHEUS = "/v1/atlas/metrics/prometheus"
N_TOKENS = 4
GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eos": True}
LABEL_OF_ROUTE = {
    "/completion": "completion",
    "/completions": "completion",
    "/v1/completions": "completions",
    "/chat/completions": "chat",
    "/v1/chat/completions": "chat",
    "/responses": "responses",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
}

Labels = frozenset[tuple[str, str]]
Series = dict[tuple[str, Labels], float]


def series(server: Server) -> Series:
    """Every sample by its name and labels."""
    families = parse_text(server.get(PROMETHEUS).text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


class Change:
    """What the samples grew by since this was made, once the requests have ended."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._before = series(server)
        self._now = self._before

    def settle(self) -> "Change":
        """Wait for the end of all requests: a client has its answer a little before."""

        def is_quiet() -> bool:
            self._now = series(self._server)
            return self._now["atlas_requests_in_progress", frozenset()] == 0

        self._server.wait_until(is_quiet, timeout=10.0)
        return self

    def __call__(self, name: str, **labels: str) -> float:
        """How much one sample grew; of a histogram, by how many."""
        key = f"{name}_count" if name.endswith("_seconds") else name, frozenset(labels.items())
        return self._now[key] - self._before[key]

    def total(self, name: str, **labels: str) -> float:
        """How much all samples of a name that have these labels grew together."""
        wanted = set(labels.items())
        return sum(self(name, **dict(key)) for found, key in self._now if found == name and wanted <= key)

    def seconds(self, name: str) -> float:
        """How much the sum of a histogram grew."""
        return self(f"{name}_sum")

    def quantile(self, name: str, part: float) -> tuple[float, float]:
        """Between which bounds of a histogram that part of what was added ends."""
        bucket = f"{name}_bucket"
        bounds = sorted((dict(key)["le"] for found, key in self._now if found == bucket), key=float)
        wanted = part * self(name)
        n_below = next(i for i, bound in enumerate(bounds) if self(bucket, le=bound) >= wanted)
        return float(bounds[n_below - 1]) if n_below else 0.0, float(bounds[n_below])


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("counted")
    arguments: list[str | Path] = ["--atlas-memory-path", directory / "memory"]
    with Server([*arguments, *ENDLESS_OPTIONS], directory=directory) as running:
        yield running


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("asked", [False, True], ids=["plain", "atlas"])
def test_requests_by_route(counted: Server, path: str, stream: bool, asked: bool) -> None:
    change = Change(counted)
    complete(counted, path, stream=stream, **GREEDY, **({"atlas": {}} if asked else {}))
    change.settle()
    labels = {"route": LABEL_OF_ROUTE[path], "outcome": "ok", "atlas": "yes" if asked else "no"}
    assert change("atlas_requests_total", **labels) == 1
    assert change.total("atlas_requests_total") == 1
    assert change("atlas_answer_tokens_total") == N_TOKENS
    for name in ("request", "queue", "prefill", "time_to_first_token", "request_overhead"):
        assert change(f"atlas_{name}_seconds") == 1, name
    # what a token adds may be held back until its text is certain
    assert change("atlas_inter_token_seconds") in (range(1, N_TOKENS + 1) if stream else [0])
    assert change("atlas_overhead_seconds", phase="parse") == 1
    assert change("atlas_overhead_seconds", phase="answer") == asked


def test_load(counted: Server) -> None:
    n_requests, n_tokens = 24, 16
    prompts = [
        f"{number} is a number that only this request has. Which one is it?" for number in range(100, 124)
    ]

    def ask(prompt: str) -> dict[str, Any]:
        body = {"prompt": prompt, "n_predict": n_tokens, **GREEDY}
        answer: dict[str, Any] = counted.post("/completion", body).json()
        return answer

    change = Change(counted)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, prompts))
    change.settle()
    computed = sum(answer["timings"]["prompt_n"] for answer in answers)
    reused = sum(answer["timings"]["cache_n"] for answer in answers)
    assert change.total("atlas_requests_total") == n_requests
    assert change("atlas_requests_total", route="completion", outcome="ok", atlas="no") == n_requests
    assert change("atlas_answer_tokens_total") == n_requests * n_tokens
    assert change("atlas_prompt_tokens_total", source="computed") == computed
    assert change.total("atlas_prompt_tokens_total") == computed + reused
    assert change.total("atlas_restores_total") == n_requests
    assert change.total("atlas_cache_requests_total") == n_requests
    hits = sum(answer["timings"]["cache_n"] > 0 for answer in answers)
    assert change("atlas_cache_requests_total", result="hit") == hits
    prefill = sum(answer["timings"]["prompt_ms"] for answer in answers) / 1000
    assert change.seconds("atlas_prefill_seconds") == pytest.approx(prefill, rel=0.01)


def test_sources_of_prompt_tokens(start_server: StartServer, tmp_path: Path) -> None:
    arguments = ["--atlas-memory-path", tmp_path / "memory"]
    body = {"prompt": [3 + i % 200 for i in range(600)], "n_predict": 1, **GREEDY}
    server = start_server([*arguments, "-np", "1"])

    def ask(prompt: list[int]) -> tuple[Change, dict[str, int]]:
        change = Change(server)
        timings = server.post("/completion", {**body, "prompt": prompt}).json()["timings"]
        return change.settle(), timings

    cold, _ = ask(body["prompt"])
    assert cold("atlas_prompt_tokens_total", source="computed") == 600
    assert cold("atlas_cache_requests_total", result="miss") == 1
    warm, timings = ask(body["prompt"])
    assert warm("atlas_prompt_tokens_total", source="slot") == timings["cache_n"] > 512
    assert warm("atlas_cache_requests_total", result="hit") == 1
    ask([7] * 600)
    ram, timings = ask(body["prompt"])
    assert ram("atlas_prompt_tokens_total", source="ram") == timings["cache_n"] > 512
    assert ram("atlas_restores_total", result="restored", layer="ram") == 1
    assert ram("atlas_restore_seconds") == 1

    assert server.post("/v1/atlas/memory/flush").status_code == 200
    server.kill()
    server = start_server([*arguments, *NO_PRELOADING, "-np", "1"])
    server.wait_until(
        lambda: server.get("/v1/atlas/status").json()["data"]["memory"]["disk"]["index_complete"]
    )
    disk, timings = ask(body["prompt"])
    assert disk("atlas_prompt_tokens_total", source="disk") == timings["cache_n"] > 512
    assert disk("atlas_restores_total", result="restored", layer="disk") == 1
    assert disk("atlas_read_bytes_total") > 0


def test_choices_and_prompts(counted: Server) -> None:
    body = {"prompt": ["One two three", "Four five six seven"], "n": 2, "max_tokens": N_TOKENS, **GREEDY}
    for fields in ({}, {"atlas": {"batch_size": 1}}):
        change = Change(counted)
        usage = counted.post("/v1/completions", {**body, **fields}).json()["usage"]
        change.settle()
        assert change.total("atlas_requests_total") == 1
        assert change("atlas_answer_tokens_total") == 4 * N_TOKENS == usage["completion_tokens"] * 4
        assert change.total("atlas_prompt_tokens_total") > 0


def test_outcomes(counted: Server) -> None:
    change = Change(counted)
    bad: list[dict[str, Any]] = [
        {"content": b"{", "headers": {"Content-Type": "application/json"}},
        {"json": {"prompt": "x", "atlas": {"batch_size": 0}}},
        {"json": {"prompt": [5] * 100_000}},
        {"json": {"prompt": [5] * 100_000, "stream": True}},
        {"json": {"no": "prompt"}},
    ]
    for arguments in bad:
        assert counted.client.post("/v1/completions", **arguments).status_code >= 400
    with endless(counted):
        pass
    change.settle()
    errors = change.total("atlas_requests_total", route="completions", outcome="error")
    assert errors == len(bad)
    assert change("atlas_requests_total", route="completions", outcome="error", atlas="yes") == 1
    assert change("atlas_requests_total", route="completion", outcome="cancelled", atlas="no") == 1
    assert change.total("atlas_requests_total") == len(bad) + 1
    assert change("atlas_request_seconds") == 0


def test_refusals(start_server: StartServer) -> None:
    limits = ["--atlas-key-requests-per-s", "0.001", "--atlas-pool-timeout-ms", "50"]
    server = start_server([*limits[2:], *ENDLESS_OPTIONS, "-np", "1"])
    change = Change(server)
    with endless(server):
        refused = server.post("/completion", {**BODIES["/completion"], "atlas": {"session_id": "a"}})
        assert refused.status_code == 503
    change.settle()
    assert change("atlas_refusals_total", reason="exhausted") == 1
    assert change("atlas_requests_total", route="completion", outcome="refused", atlas="yes") == 1

    server = start_server(limits[:2])
    change = Change(server)
    answers = [server.post("/completion", BODIES["/completion"]).status_code for _ in range(2)]
    change.settle()
    assert answers == [200, 429]
    assert change("atlas_refusals_total", reason="rate") == 1
    assert change("atlas_requests_total", route="completion", outcome="refused", atlas="no") == 1


def measure(server: Server, n_requests: int) -> dict[str, list[float]]:
    """Seconds that streamed completions take for a client, by the families that measure the same."""
    first: list[float] = []
    gaps: list[float] = []
    whole: list[float] = []
    for number in range(n_requests):
        body = {
            "prompt": [number + 3] * 1800,
            "n_predict": 48,
            "stream": True,
            "cache_prompt": False,
            **GREEDY,
        }
        began = last = time.perf_counter()
        with server.client.stream("POST", "/completion", json=body) as running:
            for line in running.iter_lines():
                if line.startswith("data: ") and '"stop":false' in line:
                    now = time.perf_counter()
                    (gaps if last > began else first).append(now - last)
                    last = now
        whole.append(time.perf_counter() - began)
    return {
        "atlas_time_to_first_token_seconds": first,
        "atlas_inter_token_seconds": gaps,
        "atlas_request_seconds": whole,
    }


def test_latencies_are_those_that_a_client_sees(counted: Server) -> None:
    # A client that waits for a processor sees what the server does not; a server's error is in all rounds.
    differences: list[str] = []
    for _ in range(5):
        change = Change(counted)
        seen = measure(counted, 8)
        change.settle()
        differences = []
        for name, values in seen.items():
            assert change(name) == len(values)
            mean = change.seconds(name) / len(values)
            if mean != pytest.approx(statistics.fmean(values), rel=0.05):
                differences.append(f"{name}: mean {mean}, client {statistics.fmean(values)}")
            for part in (0.5, 0.9):
                value = sorted(values)[ceil(part * len(values)) - 1]
                lower, upper = change.quantile(name, part)
                if not lower * 0.95 <= value <= upper * 1.05:
                    differences.append(f"{name}: quantile {part} in {lower} to {upper}, client {value}")
        if not differences:
            break
    assert differences == []


def test_off(start_server: StartServer) -> None:
    server = start_server(["--no-atlas-metrics"])
    complete(server, "/completion", atlas={})
    assert server.get(PROMETHEUS).status_code == 503
    assert server.get("/v1/atlas/status").json()["data"]["metrics_enabled"] is False


def test_labels_name_nobody(counted: Server) -> None:
    complete(counted, "/completion", atlas={"session_id": "a-session-of-somebody"})
    answer: httpx.Response = counted.get(PROMETHEUS)
    assert "somebody" not in answer.text
