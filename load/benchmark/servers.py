"""Servers in turn under the same load: stock, ATLAS in several ways, and stock again.

What is between stock and stock again is noise, of this machine at this time.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from load.benchmark.client import Outcome, Plan
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

# With the percentile that each is.
OVERHEAD = {"`overhead_ms`, p50": 50, "`overhead_ms`, p99": 99}
CLIENT_CPU = "CPU share of the load generator"
# Neither a server's own nor comparable with stock.
ASIDE = frozenset((*OVERHEAD, CLIENT_CPU))


def figures_of(plan: Plan, outcome: Outcome, cpu: float) -> dict[str, float]:
    """What a plan showed; `cpu` is the server's time for it in seconds."""
    if plan.stream:
        times = {"first token": outcome.first_token_ms, "gap": outcome.gap_ms}
        return {
            f"{what}, p{percent}, ms": percentile(values, percent)
            for what, values in times.items()
            for percent in (50, 99)
        }
    of = "1 client" if plan.clients == 1 else f"{plan.clients} clients"
    figures = {
        f"CPU a request, {of}, ms": cpu / plan.requests * 1e3,
        f"requests a second, {of}": plan.requests / outcome.seconds,
        f"latency, {of}, p50, ms": percentile(outcome.latency_ms, 50),
        f"latency, {of}, p99, ms": percentile(outcome.latency_ms, 99),
    }
    if plan.clients == 1 and outcome.overhead_ms:
        figures |= {name: percentile(outcome.overhead_ms, percent) for name, percent in OVERHEAD.items()}
    if plan.clients > 1:
        figures[CLIENT_CPU] = outcome.cpu_seconds / outcome.seconds
    return figures


def measure(
    case: Case, generator: LoadGenerator, requests: int, seed: int, directory: Path
) -> dict[str, float]:
    """Start the server of a case, put load on it, and return its figures."""
    options: list[str | Path] = [*OPTIONS]
    environment = {}
    if case.binary is BINARY:
        memory = str(directory / "memory")
        environment = {"ATLAS_MEMORY_PATH": memory, "ATLAS_ENABLED": str(int(case.enabled))}
    if case.hook:
        options += ["--atlas-plugin", write_plugin(directory, _HOOK.format(answer=case.hook))]
    began = perf_counter()
    with Server(options, environment, directory=directory, binary=case.binary) as server:
        figures = {"start-up, ms": (perf_counter() - began) * 1e3}
        assert server.process is not None
        pid = server.process.pid
        atlas = None if case.atlas is None else dict(case.atlas)
        generator.run(Plan(server.url, 4, 8, seed, atlas=atlas))
        figures["resident at first, MiB"] = resident_mib(pid)
        for plan in (
            Plan(server.url, 1, requests, seed + 1, atlas=atlas),
            Plan(server.url, MANY_CLIENTS, 2 * requests, seed + 2, atlas=atlas),
            Plan(server.url, 1, max(requests // 2, 1), seed + 3, stream=True, atlas=atlas),
        ):
            before = cpu_seconds(pid)
            outcome = generator.run(plan)
            figures |= figures_of(plan, outcome, cpu_seconds(pid) - before)
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
