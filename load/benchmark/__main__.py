"""Compares build/bin/llama-server with build-stock/bin/llama-server, and measures what the memory is for.

servers: side by side, in turns, under the same seeded load, with the demo model. resume: the first token of a
known conversation after kill -9, with a random model of 1B's shape. stalls: the gaps of a stream while
another conversation is captured or restored, with that model. trace: hit rates on the trace that --trace
names. shared, only where it is named: a known conversation from Redis and Valkey through links of 1 and
10 Gbit, with that model; dead-store, likewise: prompts while Redis works, hangs and is dead, with the demo
model. Prints Markdown, and writes report.md, report.html and report.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from load import shared
from load.arguments import positive, require_binaries
from load.benchmark import tables
from load.benchmark.servers import compare
from load.dead_store import dead_store_table, measure_dead_store
from load.machine import describe_machine, load_average
from load.random_model import write_random_model
from load.report import Chart, Table, page
from load.resume import (
    NEW_TOKENS,
    STREAM_TOKENS,
    Bench,
    context_for,
    measure_resume,
    measure_stalls,
    resume_table,
    stalls_table,
)
from tests.server.harness import BINARY, STOCK_BINARY

BY_DEFAULT = ("servers", "resume", "stalls", "trace")
PARTS = (*BY_DEFAULT, "shared", "dead-store")  # which need Redis; shared also root, and a quarter of an hour
REPORTS = Path("build-reports/bench")


class Amount(NamedTuple):
    """How much is measured."""

    rounds: int
    requests: int
    memory_rounds: int
    known_tokens: int


FULL = Amount(rounds=7, requests=100, memory_rounds=3, known_tokens=2048)
QUICK = Amount(rounds=3, requests=32, memory_rounds=2, known_tokens=512)


def progress(text: str) -> None:
    """Say what goes on, beside the report."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def simulate(trace: Path) -> list[dict[str, Any]]:
    """What `atlas simulate` finds. Raises subprocess.CalledProcessError; the command has said why."""
    command: list[str | Path] = [
        Path(sys.executable).with_name("atlas"),
        "simulate",
        trace,
        "--format",
        "json",
    ]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    results: list[dict[str, Any]] = json.loads(output)
    return results


def measure(
    wanted: tuple[str, ...], amount: Amount, trace: Path | None, directory: Path
) -> tuple[dict[str, Any], list[Table | Chart]]:
    """The parts wanted: samples by part, and what to show of them."""
    data: dict[str, Any] = {}
    shown: list[Table | Chart] = []
    if "servers" in wanted:
        samples = compare(amount.rounds, amount.requests, directory, progress)
        data["servers"] = samples
        shown += [*tables.comparison_tables(samples), tables.comparison_chart(samples)]
    if {"resume", "stalls", "shared"} & set(wanted):
        progress("writing a model of 1B's shape")
        model = directory / "random-1b-q4_0.gguf"
        write_random_model(model)
    cores = os.cpu_count() or 1
    if "resume" in wanted:
        progress("resuming a conversation")
        with Bench(model, directory, context_for(amount.known_tokens, NEW_TOKENS), cores) as bench:
            cold, times = measure_resume(bench, amount.known_tokens, NEW_TOKENS, amount.memory_rounds)
        data["resume"] = {"cold": cold, "by length": times}
        shown += [resume_table(amount.known_tokens, length, cold, found) for length, found in times.items()]
    if "stalls" in wanted:
        progress("a stream beside captures and restores")
        with Bench(model, directory, STREAM_TOKENS, cores) as bench:
            gaps = measure_stalls(bench, amount.memory_rounds, amount.known_tokens)
        data["stalls"] = gaps
        shown += [stalls_table(amount.known_tokens, gaps), tables.gaps_chart(gaps)]
    if "shared" in wanted:
        progress("a conversation from what servers share")
        sizes = amount.known_tokens, 4 * amount.known_tokens
        data["shared"], found_tables = shared.all_tables(
            model, directory, sizes, amount.memory_rounds, progress
        )
        shown += found_tables
    if "dead-store" in wanted:
        data["dead-store"] = waits = measure_dead_store(directory, amount.memory_rounds, progress)
        shown.append(dead_store_table(waits))
    if "trace" in wanted and trace is not None:
        progress(f"replaying {trace}")
        rates = simulate(trace)
        data["trace"] = rates
        shown += [tables.hit_rate_table(rates), tables.hit_rate_chart(rates)]
    return data, shown


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="measure less, in about two minutes")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; repeatable")
    parser.add_argument(
        "--rounds", type=positive, help=f"times that each server runs (default {FULL.rounds})"
    )
    parser.add_argument(
        "--requests", type=positive, help=f"requests of one client in a round (default {FULL.requests})"
    )
    parser.add_argument("--trace", type=Path, metavar="FILE", help="requests for `atlas simulate`")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=REPORTS, help="where the reports go (%(default)s)"
    )
    options = parser.parse_args()
    wanted = tuple(options.only or BY_DEFAULT)
    if options.trace is None and options.only and "trace" in wanted:
        parser.error("--only trace needs --trace FILE, requests as JSON lines in the format of Mooncake")
    if options.trace is not None and not options.trace.is_file():
        parser.error(f"there is no file '{options.trace}'; --trace names requests as JSON lines")
    require_binaries(parser, BINARY, STOCK_BINARY)
    amount = QUICK if options.quick else FULL
    given = {name: getattr(options, name) for name in ("rounds", "requests") if getattr(options, name)}
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name:
        data, shown = measure(wanted, amount._replace(**given), options.trace, Path(name))
    machine += f", afterwards {load_average()}"
    text = "\n".join([machine + "\n", *(part.markdown() for part in shown if isinstance(part, Table))])
    print(text)
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.md").write_text(text, encoding="utf-8")
    (output / "report.html").write_text(page("ATLAS and stock: " + machine, shown), encoding="utf-8")
    record = {"arguments": sys.argv[1:], "machine": machine} | data
    (output / "report.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    progress(f"written: {output}/report.html, report.json and report.md")


if __name__ == "__main__":
    main()
