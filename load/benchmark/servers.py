"""Servers in turn under the same load: stock, ATLAS in several ways, and stock again.

What is between stock and stock again is noise, of this machine at this time.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from load.benchmark.client import Plan
from load.benchmark.generator import LoadGenerator
from load.estimates import percentile
from load.process import cpu_seconds, resident_mib
from tests.server.harness import BINARY, STOCK_BINARY, Server, write_plugin

MANY_CLIENTS = 32
# Threads that wait for each other on busy cores would be all that is measured.
OPTIONS = ["-t", "1", "-np", str(MANY_CLIENTS), "-c", "16384"]

STOCK, STOCK_AGAIN = "stock", "stock again"
PLAIN, WITH_ATLAS, DISABLED = "ATLAS, plain request", "ATLAS, `atlas` object", "`ATLAS_ENABLED=0`"
IDLE_HOOK, ORDERING_HOOK = "`evict_order` without opinion", "`evict_order` as LRU"

_HOOK = """from atlas_plugin import hookimpl


@hookimpl
def evict_order(layer, touches, evictions):
    return {answer}
"""


@dataclass(frozen=True)
class Case:
    """A server, what its requests carry in `atlas` (None: nothing), and the case that it is compared with."""

    name: str
    against: str
    binary: Path = BINARY
    atlas: Mapping[str, Any] | None = None
    hook: str = ""
    enabled: bool = True


CASES = (
    Case(STOCK, STOCK, STOCK_BINARY),
    Case(PLAIN, STOCK),
    Case(WITH_ATLAS, STOCK, atlas={}),
    # as far from the first as any: a machine that changes makes noise, not differences
    Case(STOCK_AGAIN, STOCK, STOCK_BINARY),
    Case(DISABLED, STOCK, enabled=False),
    Case(IDLE_HOOK, WITH_ATLAS, atlas={}, hook="None"),
    Case(ORDERING_HOOK, WITH_ATLAS, atlas={}, hook="[touch.now for touch in touches]"),
)

# By case and figure, a value for each round.
Samples = dict[str, dict[str, list[float]]]

OVERHEAD = ("`overhead_ms`, p50", "`overhead_ms`, p99")
CLIENT_CPU = "CPU share of the load generator"
# Neither a server's own nor comparable with stock.
ASIDE = frozenset((*OVERHEAD, CLIENT_CPU))


def measure(
    case: Case, generator: LoadGenerator, requests: int, seed: int, directory: Path
) -> dict[str, float]:
    """Start the server of a case, put load on it, and return its figures."""
    options: list[str | Path] = [*OPTIONS]
    environment = {}
    if case.binary is BINARY:
        environment = {
            "ATLAS_MEMORY_PATH": str(directory / "memory"),
            "ATLAS_ENABLED": str(int(case.enabled)),
        }
    if case.hook:
        options += ["--atlas-plugin", write_plugin(directory, _HOOK.format(answer=case.hook))]
    began = perf_counter()
    with Server(options, environment, directory=directory, binary=case.binary) as server:
        figures = {"start-up, ms": (perf_counter() - began) * 1e3}
        assert server.process is not None
        pid = server.process.pid

        def load(clients: int, count: int, stream: bool = False) -> None:
            atlas = None if case.atlas is None else dict(case.atlas)
            plan = Plan(server.url, clients, count, seed + clients, stream, atlas)
            before = cpu_seconds(pid)
            outcome = generator.run(plan)
            cpu = cpu_seconds(pid) - before
            if stream:
                for name, values in (("first token", outcome.first_token_ms), ("gap", outcome.gap_ms)):
                    figures[f"{name}, p50, ms"] = percentile(values, 50)
                    figures[f"{name}, p99, ms"] = percentile(values, 99)
                return
            of = f"{clients} client{'s' if clients > 1 else ''}"
            figures[f"CPU a request, {of}, ms"] = cpu / count * 1e3
            figures[f"requests a second, {of}"] = count / outcome.seconds
            for percent in (50, 99):
                figures[f"latency, {of}, p{percent}, ms"] = percentile(outcome.latency_ms, percent)
            if clients == 1 and outcome.overhead_ms:
                for name, percent in zip(OVERHEAD, (50, 99), strict=True):
                    figures[name] = percentile(outcome.overhead_ms, percent)
            figures[CLIENT_CPU] = max(figures.get(CLIENT_CPU, 0.0), outcome.cpu_seconds / outcome.seconds)

        generator.run(Plan(server.url, 4, 8, seed))
        figures["resident at first, MiB"] = resident_mib(pid)
        load(1, requests)
        load(MANY_CLIENTS, 2 * requests)
        load(1, max(requests // 2, 1), stream=True)
        figures["resident after the load, MiB"] = resident_mib(pid)
    return figures


def compare(rounds: int, requests: int, directory: Path, report_progress: Callable[[str], None]) -> Samples:
    """All cases once a round, each round starting with another one."""
    samples: Samples = {case.name: defaultdict(list) for case in CASES}
    with LoadGenerator() as generator:
        for number in range(rounds):
            begin = number % len(CASES)
            for case in (*CASES[begin:], *CASES[:begin]):
                report_progress(f"round {number + 1} of {rounds}: {case.name}")
                place = directory / f"{number}-{CASES.index(case)}"
                place.mkdir()
                for figure, value in measure(case, generator, requests, number * 1000, place).items():
                    samples[case.name][figure].append(value)
    return samples
