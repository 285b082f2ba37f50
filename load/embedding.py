"""Measures ATLAS inside another program.

http: 32 clients at the HTTP example and at llama-server in turns, with the same options, the demo model and
one thread; tokens a second, ratio turn by turn. sequences: 32 clients at one AtlasServer of 32 sequences with
all cores, and at 32 of one sequence with a thread each, in turns; tokens a second and resident memory, with
the demo model and a random one of 1B's shape. pool: 64 threads take leases of 32 slots and give them back.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from load.arguments import positive, require_binaries
from load.benchmark.client import MAX_TOKENS, Plan
from load.benchmark.generator import LoadGenerator
from load.benchmark.servers import MANY_CLIENTS, OPTIONS
from load.machine import describe_machine, load_average
from load.process import cpu_seconds
from load.random_model import write_random_model
from load.report import Table
from tests.api.example import EXAMPLE, Example
from tests.server.harness import BINARY, MODEL, Server

PARTS = ("http", "sequences", "pool")
SEQUENCES = BINARY.with_name("atlas-bench-sequences")
POOL = BINARY.with_name("atlas-bench-pool")
POOL_THREADS, POOL_SLOTS, HELD_US = 64, 32, 1000


def spread(values: Sequence[float]) -> str:
    """The median and the range."""
    return f"{statistics.median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f})"


def ratio(own: Sequence[float], other: Sequence[float]) -> str:
    """Of pairs: the median and the range."""
    found = [one / two for one, two in zip(own, other, strict=True)]
    return f"{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"


def output_of(*command: str | Path | int) -> dict[str, Any]:
    """What a program of ours prints as JSON. Raises subprocess.CalledProcessError."""
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def http_table(rounds: int, requests: int, directory: Path) -> Table:
    """The example and llama-server, which take turns."""
    server = Server(
        [*OPTIONS, "--no-webui", "--atlas-memory-path", directory / "memory-of-server"], directory=directory
    )
    names = "the HTTP example", "llama-server"
    rates, cpu_ms = ({name: list[float]() for name in names} for _ in range(2))
    with LoadGenerator() as load, Example(directory, OPTIONS) as example, server:
        for number in range(-1, rounds):
            for name, asked in zip(names, (example, server), strict=True):
                assert asked.process
                before = cpu_seconds(asked.process.pid)
                came = load.run(Plan(asked.url, MANY_CLIENTS, requests, seed=number))
                if number >= 0:  # the first is for warming up
                    rates[name].append(requests * MAX_TOKENS / came.seconds)
                    cpu_ms[name].append((cpu_seconds(asked.process.pid) - before) * 1e3 / requests)
    rows = [[name, spread(rates[name]), spread(cpu_ms[name])] for name in names]
    rows.append(["ratio, turn by turn", ratio(*rates.values()), ratio(*cpu_ms.values())])
    return Table(
        f"{MANY_CLIENTS} clients over HTTP",
        f"{requests} chats of {MAX_TOKENS} tokens a turn, {rounds} turns each; medians and ranges.",
        ("server", "tokens a second", "CPU a request, ms"),
        rows,
    )


def sequences_table(rounds: int, models: Sequence[tuple[str, Path, int, int]]) -> Table:
    """One context with many sequences, and many with one."""
    cores = os.cpu_count() or 1
    rows = []
    for model, path, requests, tokens in models:
        shapes = {"one context": (1, MANY_CLIENTS, cores), "contexts of one sequence": (MANY_CLIENTS, 1, 1)}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in shapes}
        for _ in range(rounds):
            for name, (servers, sequences, threads) in shapes.items():
                found[name].append(output_of(SEQUENCES, path, servers, sequences, requests, tokens, threads))
        for name, results in found.items():
            if any(result["failed"] for result in results):
                raise RuntimeError(f"{name}: requests failed: {results}")
            columns = [[result[figure] for result in results] for figure in ("tokens_per_s", "mib")]
            rows.append([model, name, *map(spread, columns)])
    return Table(
        f"{MANY_CLIENTS} sequences: one context, or as many",
        f"As AtlasServers in one process, 256 tokens of context a sequence; {rounds} runs each, in turns.",
        ("model", "", "tokens a second", "resident, MiB"),
        rows,
    )


def pool_table(rounds: int) -> Table:
    """What a lease costs."""
    rows = []
    for times, held_us in ((2000, 0), (200, HELD_US)):
        results = [output_of(POOL, POOL_THREADS, POOL_SLOTS, times, held_us) for _ in range(rounds)]
        held = f"{held_us / 1e3:g} ms" if held_us else "not held"
        columns = ([result[name] for result in results] for name in ("p50", "p99", "longest"))
        rows.append([held, f"{POOL_THREADS * times:,}", *map(spread, columns)])
    return Table(
        f"A lease: {POOL_THREADS} threads, {POOL_SLOTS} slots",
        "Taking it, waiting included, and giving it back, us; how long it is held meanwhile is not counted, "
        f"but makes others wait. {rounds} runs each. Goal: p99 below 5,000.",
        ("held", "leases", "p50", "p99", "longest"),
        rows,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="make bench-embedding", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; repeatable")
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each (default 5)")
    parser.add_argument("--requests", type=positive, default=320, help="chats a turn over HTTP (default 320)")
    parser.add_argument("--demo-only", action="store_true", help="leave the model of 1B's shape out")
    options = parser.parse_args()
    require_binaries(parser, BINARY, EXAMPLE, SEQUENCES, POOL)
    wanted = options.only or PARTS

    print(f"{describe_machine()}\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if "http" in wanted:
            print(http_table(options.rounds, options.requests, directory).markdown(), flush=True)
        if "sequences" in wanted:
            models = [("demo, 2M, f16", MODEL, 4, 64)]
            if not options.demo_only:
                large = directory / "random-1b-q4_0.gguf"
                write_random_model(large)
                models.append(("random, 1B's shape, Q4_0", large, 1, 16))
            print(sequences_table(options.rounds, models).markdown(), flush=True)
        if "pool" in wanted:
            print(pool_table(options.rounds).markdown(), flush=True)
    print(f"afterwards: {load_average()}")


if __name__ == "__main__":
    main()
