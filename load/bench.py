"""Compares build/bin/llama-server with build-stock/bin/llama-server.

Shows what ATLAS adds to start-up, memory and requests. Servers run in turn, A B A B …, with the demo model;
figures are medians with their spread. `stock again` is stock against itself in the same run: differences of
that size are noise.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.server.harness import STOCK_BINARY, Server  # noqa: E402

START_UP_BUDGET_MS = 300
MEMORY_BUDGET_MIB = 64

# Threads that wait for each other on busy cores would be all that is measured.
ONE_THREAD = ["-t", "1"]

CHAT = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 8, "temperature": 0}
CHAT_WITH_ATLAS = CHAT | {"atlas": {"session_id": "bench", "memory_layers": 1}}


def resident_mib(pid: int) -> float:
    """Resident memory of a process, mapped files (the model, libpython) included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no VmRSS in /proc/{pid}/status")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(server: Server, body: dict[str, object], requests: int) -> dict[str, float]:
    """Start-up (ms), memory (MiB), and for `body` CPU and wall time a request (ms)."""
    began = time.perf_counter()
    with server:
        start_up = time.perf_counter() - began
        assert server.process is not None
        pid = server.process.pid
        server.post("/v1/chat/completions", body).raise_for_status()
        memory = resident_mib(pid)
        cpu, wall = cpu_seconds(pid), time.perf_counter()
        for _ in range(requests):
            server.post("/v1/chat/completions", body).raise_for_status()
        cpu, wall = cpu_seconds(pid) - cpu, time.perf_counter() - wall
    return {
        "start-up ms": start_up * 1e3,
        "memory MiB": memory,
        "CPU ms/request": cpu / requests * 1e3,
        "wall ms/request": wall / requests * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="times that each server runs (default 5)")
    parser.add_argument("--requests", type=int, default=300, help="requests a round (default 300)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample to FILE")
    options = parser.parse_args()

    samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        def atlas(**environment: str) -> Server:
            memory = {"ATLAS_MEMORY_PATH": str(directory / "memory")}
            return Server(ONE_THREAD, memory | environment, directory=directory)

        cases: dict[str, tuple[Callable[[], Server], dict[str, object]]] = {
            "stock": (lambda: Server(ONE_THREAD, directory=directory, binary=STOCK_BINARY), CHAT),
            "ATLAS, plain request": (atlas, CHAT),
            "ATLAS, atlas object": (atlas, CHAT_WITH_ATLAS),
            "ATLAS_ENABLED=0": (lambda: atlas(ATLAS_ENABLED="0"), CHAT),
            "stock again": (lambda: Server(ONE_THREAD, directory=directory, binary=STOCK_BINARY), CHAT),
        }
        for _ in range(options.rounds):
            for case, (make, body) in cases.items():
                for figure, value in measure(make(), body, options.requests).items():
                    samples[case][figure].append(value)

    figures = list(samples["stock"])
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {options.rounds} rounds")
    print(f"{'':24}" + "".join(f"{figure:>28}" for figure in figures))
    for case, by_figure in samples.items():
        cells = (f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in by_figure.values())
        print(f"{case:24}" + "".join(f"{cell:>28}" for cell in cells))

    def added(figure: str) -> float:
        plain, stock = samples["ATLAS, plain request"][figure], samples["stock"][figure]
        return statistics.median(plain) - statistics.median(stock)

    print(f"\nadded to start-up: {added('start-up ms'):.0f} ms (budget {START_UP_BUDGET_MS})")
    print(f"added to resident memory: {added('memory MiB'):.1f} MiB (budget {MEMORY_BUDGET_MIB})")
    subprocess.run([sys.executable, REPOSITORY / "tools/patches", "stats"], check=True)
    if options.json:
        options.json.write_text(json.dumps(samples, indent=2))


if __name__ == "__main__":
    main()
