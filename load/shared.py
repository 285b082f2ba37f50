"""Measures how soon a conversation goes on from what servers share, by store and by link.

The model is random with the shape of Llama 3.2 1B, Q4_0. A conversation is computed once and shared. Then, in
turns, a server that has nothing of its own gets it from each store through each link: veth pairs to another
network namespace, throttled by tbf. Beside it: cold, the slot that still holds it (warm), and layer 2. What
redis-benchmark moves through the same link says what there is to be had.
"""

import csv
import os
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import valkey

from load.links import Links
from load.report import Table
from load.resume import REST_S, Samples, context_for, first_token_ms, tokens
from tests.server.conversations import memory_status, wait_for_memory
from tests.server.harness import Server
from tests.stores import Store, redis_server, valkey_server

NEW_TOKENS = 4
RATES = {"unthrottled": None, "10 Gbit": "10gbit", "1 Gbit": "1gbit"}
PROGRAMS: dict[str, Callable[[], Path]] = {"Redis": redis_server, "Valkey": valkey_server}
BLOCK_BYTES = 8 << 20
BYTES_PER_TOKEN = 32 << 10
_BENCHMARKED = 48  # values


class StoreBehindLinks(Store):
    """A store in the other namespace."""

    def __init__(self, program: Path, links: Links, port: int, directory: Path) -> None:
        words = [str(program), "--bind", "0.0.0.0", "--port", str(port), "--protected-mode", "no"]
        words += ["--save", "", "--appendonly", "no", "--dir", str(directory)]
        super().__init__(links.command(*words), directory, port)
        self._links = links
        self._log_path = directory / f"{program.name}-{port}.log"

    def client(self, link: str = "unthrottled") -> Any:
        """A valkey.Valkey."""
        return valkey.Valkey(self._links.addresses[link], self.port, socket_timeout=60)

    def serves(self) -> bool:
        """Whether it answers now."""
        with suppress(valkey.ConnectionError, valkey.TimeoutError):
            return bool(self.client().ping())
        return False

    def url(self, link: str) -> str:
        """By that link."""
        return f"valkey://{self._links.addresses[link]}:{self.port}"

    def copy_to(self, other: "StoreBehindLinks") -> None:
        """All that is in it."""
        for key in self.client().scan_iter():
            other.client().set(key, self.client().get(key))

    def benchmark(self, link: str) -> dict[str, float]:
        """GB/s of `SET` and `GET` of 8 MiB with four connections, by redis-benchmark."""
        where = ["-h", self._links.addresses[link], "-p", str(self.port)]
        amount = ["-d", str(BLOCK_BYTES), "-n", str(_BENCHMARKED), "-c", "4", "-t", "set,get", "--csv"]
        done = subprocess.run(
            ["redis-benchmark", *where, *amount], capture_output=True, text=True, check=True
        )
        self.client().delete("key:__rand_int__")
        rows = list(csv.reader(done.stdout.splitlines()))[1:]
        return {row[0]: float(row[1]) * BLOCK_BYTES / 1e9 for row in rows}


def _server(model: Path, directory: Path, context: int, *options: str | Path) -> Server:
    shared = ["-c", str(context), "-np", "1", "-t", str(os.cpu_count()), "--no-webui"]
    server = Server([*shared, *options], directory=directory, model=model)
    server.client.timeout = 3600.0
    return server


def _sharing(store: StoreBehindLinks, link: str) -> list[str | Path]:
    return ["--atlas-shared-url", store.url(link), "--atlas-shared-timeout-ms", "60000"]


def _wait_for_store(server: Server) -> None:
    server.wait_until(lambda: memory_status(server)["shared"]["round_trip_ms"])


def measure_shared(
    model: Path, directory: Path, size: int, rounds: int, progress: Callable[[str], None]
) -> tuple[float, Samples, Samples]:
    """Cold in ms; times to the first token in ms by case; and GB/s of redis-benchmark by case.

    Raises RuntimeError where the machine has no network namespaces.
    """
    conversation, context = tokens(size), context_for(size, [NEW_TOKENS])
    times: Samples = defaultdict(list)
    moved: Samples = defaultdict(list)

    def ask(server: Server, layer: int | None) -> float:
        time.sleep(REST_S)
        return first_token_ms(server, 0, conversation + tokens(NEW_TOKENS), reused=size, layer=layer)

    with ExitStack() as stack:
        links = stack.enter_context(Links(RATES))
        stores = {}
        for number, (name, program) in enumerate(PROGRAMS.items()):
            store = StoreBehindLinks(program(), links, 6379 + number, directory)
            stores[name] = stack.enter_context(store)
        source, *others = stores.values()
        memory: list[str | Path] = [
            "--atlas-memory-path",
            directory / f"memory-{size}",
            "--atlas-preload-size",
            "0",
        ]
        progress(f"computing {size:,} tokens")
        with _server(model, directory, context, *memory, *_sharing(source, "unthrottled")) as server:
            _wait_for_store(server)
            cold = first_token_ms(server, 0, conversation + tokens(NEW_TOKENS))
            flushed = server.post("/v1/atlas/memory/flush", {"timeout_s": 600, "layer": 3})
            flushed.raise_for_status()
        for other in others:
            source.copy_to(other)
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            with _server(model, directory, context, *memory) as server:
                wait_for_memory(server)
                times["layer 2"].append(ask(server, 2))
                times["warm"].append(ask(server, None))
            for link in RATES:
                for name, store in stores.items():
                    with _server(model, directory, context, *_sharing(store, link)) as server:
                        _wait_for_store(server)
                        times[f"{name}, {link}"].append(ask(server, 3))
                    for what, rate in store.benchmark(link).items():
                        moved[f"{name}, {link}, {what}"].append(rate)
    return cold, times, moved


def shared_table(size: int, cold: float, times: Samples, moved: Samples) -> Table:
    """Medians with their spread, and what came a second beside what redis-benchmark gets."""
    rows = [["cold", f"{cold:,.0f}", "", "", "", ""]]
    warm = statistics.median(times["warm"])
    for case, values in times.items():
        median = statistics.median(values)
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        rate = benchmarked = ""
        if f"{case}, GET" in moved:
            # where warm took as long, other work was all that was measured
            rate = f"{size * BYTES_PER_TOKEN / 1e6 / (median - warm):.2f}" if median > warm else ""
            benchmarked = f"{statistics.median(moved[f'{case}, GET']):.2f}"
        rows.append([case, f"{median:,.0f}", spread, f"{cold / median:,.1f}x", rate, benchmarked])
    note = (
        f"Time to the first token of a message of {NEW_TOKENS} tokens, ms; GB/s of what it took longer than "
        "warm, and of `GET` by redis-benchmark with four connections."
    )
    header = ["case", "median", "range", "sooner than cold", "GB/s", "redis-benchmark"]
    return Table(f"A conversation of {size:,} tokens from what servers share", note, header, rows)


def all_tables(
    model: Path, directory: Path, sizes: Sequence[int], rounds: int, progress: Callable[[str], None]
) -> tuple[dict[str, Any], list[Table]]:
    """Of all sizes: samples, and what to show of them."""
    data: dict[str, Any] = {}
    shown = []
    for size in sizes:
        cold, times, moved = measure_shared(model, directory, size, rounds, progress)
        data[str(size)] = {"cold": cold, "times": times, "moved": moved}
        shown.append(shared_table(size, cold, times, moved))
    return data, shown
