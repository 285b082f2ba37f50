"""Measures what hooks on the path of requests cost, on servers that get the same requests in turns.

All run at once, and the others idle while one has its turn, in an order drawn anew each time. Differences to
the server without plugins are taken round by round: their median, and the 95 % interval that it lies in. What
requests waited for hooks is the server's own count, a mean of each turn: median and range of all turns.
"""

import argparse
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from load.arguments import positive, require_binaries
from load.benchmark.client import Outcome, Plan
from load.benchmark.generator import LoadGenerator
from load.benchmark.servers import MANY_CLIENTS, OPTIONS
from load.estimates import estimate_median, percentile
from load.machine import describe_machine, load_average
from load.process import cpu_seconds
from load.report import Table
from tests.server.harness import BINARY, Server, write_plugin

# A deadline that a busy machine keeps: a hook that is off costs nothing.
_HOOK = """from atlas_plugin import hookimpl


@hookimpl(deadline_ms=60000{options})
def {hook}({arguments}):
    pass
"""
NO_OP = _HOOK.format(hook="on_request", options="", arguments="request")
NAMES_BODY = _HOOK.format(hook="on_request", options="", arguments="body")
CHUNKS = _HOOK.format(hook="on_stream_chunk", options=", batch={batch}", arguments="chunk")

NONE, NONE_AGAIN = "none", "none again"
ONE, FIVE = "one `on_request`", "five `on_request`"
CHUNK, CHUNK_16 = "`on_stream_chunk`", "`on_stream_chunk`, `batch=16`"
BODY = "`on_request` that names `body`"
PLUGINS: dict[str, Sequence[str]] = {
    NONE: (),
    NONE_AGAIN: (),
    ONE: [NO_OP],
    FIVE: [NO_OP] * 5,
    CHUNK: [CHUNKS.format(batch=1)],
    CHUNK_16: [CHUNKS.format(batch=16)],
    BODY: [NAMES_BODY],
}


@dataclass(frozen=True)
class Shape:
    """Requests of one kind, and the plugin sets that are compared at it."""

    name: str
    requests: int
    cases: Sequence[str]
    max_tokens: int = 1
    stream: bool = False
    padding: int = 0

    def plan(self, url: str, clients: int, scale: int, seed: int) -> Plan:
        """A turn."""
        requests = max(clients, self.requests * scale * (2 if clients > 1 else 1) // 100)
        return Plan(
            url,
            clients,
            requests,
            seed,
            self.stream,
            max_tokens=self.max_tokens,
            padding=self.padding,
        )


SHAPES = (
    Shape("one token", 200, (NONE, NONE_AGAIN, ONE, FIVE)),
    Shape("a stream of 64 tokens", 32, (NONE, NONE_AGAIN, CHUNK, CHUNK_16), max_tokens=64, stream=True),
    Shape("one token, a body of 100 KB", 100, (NONE, NONE_AGAIN, ONE, BODY), padding=100_000),
)


def figures_of(outcome: Outcome, cpu: float) -> dict[str, float]:
    """Of a turn; ms."""
    return {
        "p50": percentile(outcome.latency_ms, 50),
        "p99": percentile(outcome.latency_ms, 99),
        "CPU": cpu / len(outcome.latency_ms) * 1e3,
    }


def waited_s(server: Server) -> float:
    """What requests waited for hooks so far."""
    lines = server.get("/v1/atlas/metrics/prometheus").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("atlas_hook_wait_seconds_total{"))


def take_turn(generator: LoadGenerator, server: Server, plan: Plan) -> dict[str, float]:
    """Carry it out."""
    assert server.process
    waited, before = waited_s(server), cpu_seconds(server.process.pid)
    outcome = generator.run(plan)
    figures = figures_of(outcome, cpu_seconds(server.process.pid) - before)
    return {**figures, "waited": (waited_s(server) - waited) / plan.requests * 1e3}


def start(case: str, directory: Path, stack: ExitStack) -> Server:
    """A server with the plugins of a case, until the stack ends."""
    directory.mkdir()
    paths = [write_plugin(directory, text, f"plugin_{at}") for at, text in enumerate(PLUGINS[case])]
    options = ["--atlas-plugin", ",".join(map(str, paths))] if paths else []
    return stack.enter_context(Server([*OPTIONS, "--no-webui", *options], directory=directory))


# By case and figure, a value for each round.
Samples = dict[str, dict[str, list[float]]]


def measure(
    shape: Shape, clients: int, rounds: int, scale: int, servers: dict[str, Server], generator: LoadGenerator
) -> Samples:
    """All cases of a shape in turns."""
    samples: Samples = {case: defaultdict(list) for case in shape.cases}
    source = random.Random(clients)
    for number in range(-1, rounds):
        for case in source.sample(shape.cases, len(shape.cases)):
            plan = shape.plan(servers[case].url, clients, scale, seed=number)
            for figure, value in take_turn(generator, servers[case], plan).items():
                if number >= 0:  # the first is for warming up
                    samples[case][figure].append(value)
    return samples


def difference(values: Sequence[float], base: Sequence[float]) -> str:
    """Round by round."""
    found = estimate_median([value - other for value, other in zip(values, base, strict=True)])
    return f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def rows_of(clients: int, samples: Samples) -> list[list[str]]:
    """A row for each case: the first as it is, the others by what they add."""
    base = samples[NONE]
    rows = []
    for case, figures in samples.items():
        compared = ("p50", "p99", "CPU")
        if case == NONE:
            cells = [f"{statistics.median(figures[name]):.2f}" for name in compared]
        else:
            cells = [difference(figures[name], base[name]) for name in compared]
        waited = figures["waited"]
        told = (
            f"{statistics.median(waited):.3f} ({min(waited):.3f} to {max(waited):.3f})"
            if PLUGINS[case]
            else ""
        )
        rows.append([f"{clients}", case, *cells, told])
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="make bench-hooks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=9, help="turns of each (default 9)")
    parser.add_argument("--scale", type=positive, default=100, help="per cent of the requests (default 100)")
    options = parser.parse_args()
    require_binaries(parser, BINARY)

    print(f"{describe_machine()}\n", flush=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        generator = stack.enter_context(LoadGenerator())
        servers = {case: start(case, Path(name) / f"{at}", stack) for at, case in enumerate(PLUGINS)}
        for shape in SHAPES:
            rows = []
            for clients in (1, MANY_CLIENTS):
                samples = measure(shape, clients, options.rounds, options.scale, servers, generator)
                rows += rows_of(clients, samples)
            table = Table(
                f"Hooks: {shape.name}",
                f"ms a request; below the server without plugins what others add. {options.rounds} rounds.",
                ("clients", "plugins", "p50", "p99", "CPU", "waited for hooks"),
                rows,
            )
            print(table.markdown(), flush=True)
    print(f"afterwards: {load_average()}")


if __name__ == "__main__":
    main()
