"""Servers side by side under the same load: stock, ATLAS in several ways, and stock again.

All run at once and take turns of a few requests, the others idle meanwhile: a machine that is slower for a
second is so for all of them. What is between stock and stock again is noise, of this machine at this time.
"""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
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


# After a turn, until its CPU time is read: what a server puts off (writing, mostly) is its own, and would
# disturb the next one.
SETTLE_S = 0.05


@dataclass(frozen=True)
class Load:
    """Requests that each server gets in a round, in so many turns."""

    clients: int
    requests: int
    turns: int
    stream: bool = False


def loads(requests: int) -> tuple[Load, ...]:
    """What a round of so many requests by one client consists of."""
    streamed = max(requests // 2, 1)
    return (
        Load(1, requests, turns=min(requests, 10)),
        Load(MANY_CLIENTS, 2 * requests, turns=2),
        Load(1, streamed, turns=min(streamed, 5), stream=True),
    )


@dataclass
class Running:
    """A server of a case, and what it showed so far under one load; `cpu` is its time for that in seconds."""

    case: Case
    server: Server
    pid: int
    outcome: Outcome = field(default_factory=Outcome)
    cpu: float = 0.0

    def plan(self, clients: int, requests: int, seed: int, stream: bool = False) -> Plan:
        """Requests as the case has them."""
        atlas = None if self.case.atlas is None else dict(self.case.atlas)
        return Plan(self.server.url, clients, requests, seed, stream, atlas)

    def take_turn(self, generator: LoadGenerator, plan: Plan) -> None:
        """Carry out a part of a load."""
        before = cpu_seconds(self.pid)
        outcome = generator.run(plan)
        time.sleep(SETTLE_S)
        self.cpu += cpu_seconds(self.pid) - before
        self.outcome.add(outcome)


def figures_of(load: Load, outcome: Outcome, cpu: float) -> dict[str, float]:
    """What a server showed under a load; `cpu` is its time for that in seconds."""
    if load.stream:
        times = {"first token": outcome.first_token_ms, "gap": outcome.gap_ms}
        return {
            f"{what}, p{percent}, ms": percentile(values, percent)
            for what, values in times.items()
            for percent in (50, 99)
        }
    requests = len(outcome.latency_ms)
    of = "1 client" if load.clients == 1 else f"{load.clients} clients"
    figures = {
        f"CPU a request, {of}, ms": cpu / requests * 1e3,
        f"requests a second, {of}": requests / outcome.seconds,
        f"latency, {of}, p50, ms": percentile(outcome.latency_ms, 50),
        f"latency, {of}, p99, ms": percentile(outcome.latency_ms, 99),
    }
    if load.clients == 1 and outcome.overhead_ms:
        figures |= {name: percentile(outcome.overhead_ms, percent) for name, percent in OVERHEAD.items()}
    if load.clients > 1:
        figures[CLIENT_CPU] = outcome.cpu_seconds / outcome.seconds
    return figures


def start(case: Case, directory: Path, stack: ExitStack) -> Running:
    """A server of a case with a memory of its own in `directory`, until the stack ends."""
    options: list[str | Path] = [*OPTIONS]
    environment = {}
    if case.binary is BINARY:
        memory = str(directory / "memory")
        environment = {"ATLAS_MEMORY_PATH": memory, "ATLAS_ENABLED": str(int(case.enabled))}
    if case.hook:
        options += ["--atlas-plugin", write_plugin(directory, _HOOK.format(answer=case.hook))]
    server = stack.enter_context(Server(options, environment, directory=directory, binary=case.binary))
    assert server.process is not None
    return Running(case, server, server.process.pid)


def put_on(load: Load, running: list[Running], source: random.Random, generator: LoadGenerator) -> None:
    """Have the servers take turns, in an order drawn anew each time, until each had its requests."""
    for each in running:
        each.outcome, each.cpu = Outcome(), 0.0
    for turn in range(load.turns):
        seed = source.getrandbits(32)
        part = load.requests // load.turns + (turn < load.requests % load.turns)
        for each in source.sample(running, len(running)):
            each.take_turn(generator, each.plan(load.clients, part, seed, load.stream))


def run_round(
    number: int, requests: int, directory: Path, generator: LoadGenerator
) -> dict[str, dict[str, float]]:
    """Start all servers anew and put load on them; figures by case. Equal rounds send equal requests."""
    source = random.Random(number)
    figures: dict[str, dict[str, float]] = {case.name: {} for case in CASES}
    with ExitStack() as stack:
        running = []
        for place, case in enumerate(source.sample(CASES, len(CASES))):
            of_case = directory / f"{number}-{place}"
            of_case.mkdir()
            began = time.perf_counter()
            running.append(start(case, of_case, stack))
            figures[case.name]["start-up, ms"] = (time.perf_counter() - began) * 1e3
        for each in running:
            generator.run(each.plan(4, 8, seed=number))
            figures[each.case.name]["resident at first, MiB"] = resident_mib(each.pid)
        for load in loads(requests):
            put_on(load, running, source, generator)
            for each in running:
                figures[each.case.name] |= figures_of(load, each.outcome, each.cpu)
        for each in running:
            figures[each.case.name]["resident after the load, MiB"] = resident_mib(each.pid)
    return figures


def compare(rounds: int, requests: int, directory: Path, report_progress: Callable[[str], None]) -> Samples:
    """The figures of all cases, a value for each round."""
    samples: Samples = {case.name: defaultdict(list) for case in CASES}
    with LoadGenerator() as generator:
        for number in range(rounds):
            report_progress(f"servers, round {number + 1} of {rounds}")
            for case, figures in run_round(number, requests, directory, generator).items():
                for figure, value in figures.items():
                    samples[case][figure].append(value)
    return samples
