"""Measures what a store that servers share costs while it does not work.

Two servers with the demo model, one of which shares through Redis, are asked in turns for the first token of
prompts that nobody knows. In a round Redis works, then hangs (SIGSTOP: the kernel still takes what is sent),
then is killed. The first request after it hangs is apart: later ones find the breaker open.
"""

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from load.report import Table
from load.resume import Samples, first_token_ms
from tests.server.conversations import memory_status
from tests.server.harness import Server
from tests.stores import RespServer

PROMPT_TOKENS = 1000
REQUESTS = 20  # in a round, of each server in each state of the store
TIMEOUT_MS = 500
_VOCABULARY = range(300, 1200)  # plain tokens of the demo model


def _status(server: Server) -> Any:
    return memory_status(server)["shared"]


def _measure_round(directory: Path, ask: Callable[[Server, str], None]) -> None:
    options: list[str | Path] = ["-c", "2048", "-np", "1", "-t", "2", "--no-webui", "--atlas-memory-path"]
    with RespServer(directory) as store:
        shared = ["--atlas-shared-url", store.url, "--atlas-shared-timeout-ms", str(TIMEOUT_MS)]
        with (
            Server([*options, directory / "alone"], directory=directory) as alone,
            Server([*options, directory / "sharing", *shared], directory=directory) as sharing,
        ):

            def in_turns(case: str) -> None:
                for _ in range(REQUESTS):
                    ask(alone, f"no store, beside: {case}")
                    ask(sharing, case)

            sharing.wait_until(lambda: _status(sharing)["round_trip_ms"])
            in_turns("the store works")
            store.stop()
            ask(sharing, "the first request after it hangs")
            sharing.wait_until(lambda: _status(sharing)["problem"])
            in_turns("the store hangs")
            store.kill()
            in_turns("the store is dead")


def measure_dead_store(directory: Path, rounds: int, progress: Callable[[str], None]) -> Samples:
    """Times to the first token in ms, by the state of the store."""
    times: Samples = defaultdict(list)
    source = random.Random(1)

    def ask(server: Server, case: str) -> None:
        prompt = source.choices(_VOCABULARY, k=PROMPT_TOKENS)
        times[case].append(first_token_ms(server, 0, prompt))

    for number in range(rounds):
        progress(f"a store that works, hangs and is dead: round {number + 1} of {rounds}")
        place = directory / f"store-{number}"
        place.mkdir()
        _measure_round(place, ask)
    return times


def dead_store_table(times: Samples) -> Table:
    """Medians, and how they compare with those of the server without a store, asked in turns with it."""
    rows = []
    for case, values in times.items():
        beside = times.get(f"no store, beside: {case}")
        ratio = f"{median(values) / median(beside):.3f}" if beside else ""
        spread = f"{min(values):,.1f} to {max(values):,.1f}"
        rows.append([case, str(len(values)), f"{median(values):,.1f}", spread, ratio])
    note = (
        f"Time to the first token of {PROMPT_TOKENS:,} unknown tokens, ms; what is asked of the store has "
        f"{TIMEOUT_MS} ms."
    )
    header = ["case", "requests", "median", "range", "of that without a store"]
    return Table("A store that works, hangs, and is dead", note, header, rows)
