"""Measures how soon a known conversation goes on, and what keeping it costs another one's stream.

The model is random with the shape of Llama 3.2 1B, Q4_0. A conversation of N tokens is computed once (cold)
and then continued each round by a message of --new-tokens tokens: in the slot that still holds it (warm),
after kill -9 and a restart, which reads into RAM what was used last (restarted), the same where that is
turned off (disk), and after another conversation took its slot (RAM). Stock is measured beside, its slot
saved once and restored by hand after each restart; the time of that restore counts. Then a stream's
inter-token gaps are compared: quiet, and while a second conversation of 2,048 tokens is continued, restored,
or captured and written.

Times to first token are wall clock from the request to the first streamed token, a second after the server
was last asked for anything. Files come from the page cache.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx

from load.arguments import positive
from load.estimates import percentile
from load.machine import describe_machine, load_average
from load.random_model import VOCABULARY, write_random_model
from load.report import Table
from tests.server.conversations import wait_for_memory
from tests.server.harness import STOCK_BINARY, Server

SIZES = (2048, 8192)
# A single token shows what restoring costs beside next to nothing; people send more.
NEW_TOKENS = (1, 4, 32)
STALL_TOKENS = 2048
STREAM_TOKENS = 8192
STREAM_SLOT, OTHER_SLOT = 0, 1
# Capturing and writing 2,048 tokens takes less.
CAPTURE_WINDOW_S = 1.0
QUIET_S = 8.0
# Nobody answers at once, and what a server puts off until it is idle is not the next message's.
REST_S = 1.0
SAVED = {"filename": "conversation"}

Samples = dict[str, list[float]]

_source = random.Random(1)


def tokens(count: int) -> list[int]:
    """Random tokens, the same ones in each run."""
    return [_source.randrange(VOCABULARY) for _ in range(count)]


def request(slot: int, prompt: Sequence[int], n_predict: int) -> dict[str, Any]:
    """Body of a streamed, greedy completion."""
    options = {"n_predict": n_predict, "temperature": 0, "ignore_eos": True, "stream": True}
    return options | {"id_slot": slot, "prompt": prompt, "atlas": {}}


def read_events(response: httpx.Response) -> Iterator[str]:
    """The data of a streamed answer as it comes, without the comments that keep a slow one alive."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


def first_token_ms(
    server: Server, slot: int, prompt: Sequence[int], *, reused: int = 0, layer: int | None = None
) -> float:
    """Time until the first token of an answer. Raises RuntimeError unless `reused` came from `layer`."""
    began = time.perf_counter()
    with server.client.stream("POST", "/completion", json=request(slot, prompt, 1)) as response:
        response.raise_for_status()
        events = read_events(response)
        next(events)
        elapsed = time.perf_counter() - began
        *_, last = map(json.loads, events)
    met = last["timings"]["cache_n"], layer and last["atlas"]["layer"]
    if met != (reused, layer):
        raise RuntimeError(f"{met[0]} tokens reused from layer {met[1]}, expected {reused} from {layer}")
    return elapsed * 1e3


def timed_ms(call: Callable[[], Any]) -> float:
    """How long a request takes. Raises for one that fails."""
    began = time.perf_counter()
    call().raise_for_status()
    return (time.perf_counter() - began) * 1e3


def context_for(size: int, lengths: Sequence[int]) -> int:
    """Tokens of context that a conversation of that size and messages of these lengths need."""
    return size + 2 * max(lengths) + 8


class Bench:
    """The two servers with the same model and context, and their files."""

    def __init__(self, model: Path, directory: Path, context: int, threads: int) -> None:
        shared = ["-c", str(2 * context), "-t", str(threads), "--no-webui"]
        memory = ["--atlas-memory-path", str(directory / f"memory-{context}")]
        self.atlas = Server([*shared, *memory], directory=directory, model=model)
        saving = ["--slot-save-path", str(directory)]
        self.stock = Server([*shared, *saving], directory=directory, model=model, binary=STOCK_BINARY)
        for server in (self.atlas, self.stock):
            server.client.timeout = 1800.0

    def __enter__(self) -> Self:
        for server in (self.atlas, self.stock):
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self.atlas, self.stock):
            server.kill()
            server.client.close()

    def restart(self, server: Server) -> None:
        """kill -9, and start anew."""
        server.kill()
        server.start()

    def restart_atlas(self, *, preload: bool) -> None:
        """The same, and wait until all on disk is known, and in RAM as far as that is done unasked."""
        self.atlas.environment.pop("ATLAS_PRELOAD_SIZE", None)
        if not preload:
            self.atlas.environment["ATLAS_PRELOAD_SIZE"] = "0"
        self.restart(self.atlas)
        wait_for_memory(self.atlas)

    def flush(self) -> None:
        """Make everything published durable."""
        self.atlas.post("/v1/atlas/memory/flush", {"timeout_s": 60}).raise_for_status()

    def slot(self, action: str, slot: int = 0) -> float:
        """Save or restore a slot of stock; how long it took, in ms."""
        return timed_ms(lambda: self.stock.post(f"/slots/{slot}?action={action}", SAVED))


def measure_resume(
    bench: Bench, size: int, lengths: Sequence[int], rounds: int
) -> tuple[dict[str, float], dict[int, Samples]]:
    """Times to first token in ms: cold by server, and those of messages of each of `lengths` by case."""
    samples: dict[int, Samples] = {length: defaultdict(list) for length in lengths}
    conversation = tokens(size)

    def ask(server: Server, length: int, layer: int | None = None) -> float:
        return first_token_ms(server, 0, conversation + tokens(length), reused=size, layer=layer)

    def ask_rested(server: Server, length: int, layer: int | None = None) -> float:
        time.sleep(REST_S)
        return ask(server, length, layer)

    cold = {}
    for name, server in (("ATLAS", bench.atlas), ("stock", bench.stock)):
        cold[name] = first_token_ms(server, 0, conversation + tokens(1))
        ask(server, 1)
    bench.flush()
    bench.slot("save")
    for _, length in itertools.product(range(rounds), lengths):
        found = samples[length]
        bench.restart_atlas(preload=True)
        found["ATLAS restarted"].append(ask_rested(bench.atlas, length, layer=1))
        bench.restart_atlas(preload=False)
        found["ATLAS disk"].append(ask_rested(bench.atlas, length, layer=2))
        found["ATLAS warm"].append(ask_rested(bench.atlas, length))
        first_token_ms(bench.atlas, 0, tokens(8))
        found["ATLAS RAM"].append(ask_rested(bench.atlas, length, layer=1))
        bench.restart(bench.stock)
        time.sleep(REST_S)
        found["stock disk"].append(bench.slot("restore") + ask(bench.stock, length))
        found["stock warm"].append(ask_rested(bench.stock, length))
    return cold, samples


class Stream:
    """A long answer in STREAM_SLOT, read in a thread that notes when each token comes."""

    def __init__(self, server: Server) -> None:
        self.times: list[float] = []
        self._server = server
        self._stopping = False
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        body = request(STREAM_SLOT, tokens(8), STREAM_TOKENS)
        with self._server.client.stream("POST", "/completion", json=body) as response:
            for _ in read_events(response):
                self.times.append(time.perf_counter())
                if self._stopping:
                    return

    def __enter__(self) -> Self:
        self._thread.start()
        while len(self.times) < 8:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    def gaps_ms(self, action: Callable[[], object]) -> list[float]:
        """The gaps between tokens that overlap the time that `action` takes."""
        begin = time.perf_counter()
        action()
        end = time.perf_counter()
        while self._thread.is_alive() and self.times[-1] < end:
            time.sleep(0.001)
        if not self._thread.is_alive():
            raise RuntimeError("the stream ended too early; use fewer rounds")
        times = self.times.copy()
        return [
            (after - before) * 1e3
            for before, after in itertools.pairwise(times)
            if after > begin and before < end
        ]


def measure_stalls(bench: Bench, rounds: int, size: int) -> Samples:
    """A stream's inter-token gaps in ms, by what happens beside it to a conversation of `size` tokens."""
    samples: Samples = defaultdict(list)
    conversation = tokens(size)

    def ask(server: Server, layer: int | None = None) -> float:
        return first_token_ms(server, OTHER_SLOT, conversation + tokens(1), reused=size, layer=layer)

    for name, server in (("ATLAS", bench.atlas), ("stock", bench.stock)):
        first_token_ms(server, OTHER_SLOT, conversation + tokens(1))
        with Stream(server) as stream:
            samples[f"{name} quiet"] += stream.gaps_ms(lambda: time.sleep(QUIET_S))
            for _ in range(rounds):
                samples[f"{name} beside: warm"] += stream.gaps_ms(partial(ask, server))
    with Stream(bench.stock) as stream:
        for _ in range(rounds):
            samples["stock saved by hand"] += stream.gaps_ms(lambda: bench.slot("save", OTHER_SLOT))
            samples["stock restored by hand"] += stream.gaps_ms(lambda: bench.slot("restore", OTHER_SLOT))
    with Stream(bench.atlas) as stream:
        for _ in range(rounds):
            first_token_ms(bench.atlas, OTHER_SLOT, tokens(8))
            time.sleep(CAPTURE_WINDOW_S)
            samples["ATLAS beside: restored, RAM"] += stream.gaps_ms(lambda: ask(bench.atlas, layer=1))
    for _ in range(rounds):
        bench.flush()
        bench.restart_atlas(preload=False)
        with Stream(bench.atlas) as stream:
            samples["ATLAS beside: restored, disk"] += stream.gaps_ms(lambda: ask(bench.atlas, layer=2))
    for _ in range(rounds):
        with Stream(bench.atlas) as stream:
            first_token_ms(bench.atlas, OTHER_SLOT, tokens(size))
            samples["ATLAS beside: captured, written"] += stream.gaps_ms(lambda: time.sleep(CAPTURE_WINDOW_S))
            bench.flush()
            samples["ATLAS quiet after each"] += stream.gaps_ms(lambda: time.sleep(CAPTURE_WINDOW_S))
    return samples


def resume_table(size: int, length: int, cold: dict[str, float], samples: Samples) -> Table:
    """Medians with their spread, and ratios to the same server's cold and to both servers' warm."""
    rows = [[f"{name} cold", f"{value:,.1f}", "", "", "", ""] for name, value in cold.items()]
    warm = {name: statistics.median(samples[f"{name} warm"]) for name in cold}
    for case, values in samples.items():
        median = statistics.median(values)
        spread = f"{min(values):,.1f} to {max(values):,.1f}"
        sooner = f"{cold[case.split()[0]] / median:,.1f}x"
        ratios = (f"{median / of:,.2f}x" for of in warm.values())
        rows.append([case, f"{median:,.1f}", spread, sooner, *ratios])
    note = f"Time to the first token of the next message, {size:,} tokens known, ms."
    header = ["case", "median", "range", "sooner than cold", *(f"of {name} warm" for name in warm)]
    return Table(f"A message of {length:,} tokens to a conversation of {size:,}", note, header, rows)


def stalls_table(size: int, samples: Samples) -> Table:
    """The distribution of gaps."""
    rows = [
        [case, str(len(gaps)), *(f"{percentile(gaps, percent):.1f}" for percent in (50, 90, 99, 100))]
        for case, gaps in samples.items()
    ]
    note = (
        f"Gaps between the tokens of a stream, while {size:,} tokens of another conversation are handled, ms."
    )
    header = ["meanwhile", "gaps", "p50", "p90", "p99", "longest"]
    return Table("A stream beside a capture", note, header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make bench-resume", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=5, help="samples of all but cold (default 5)")
    parser.add_argument(
        "--known-tokens",
        type=positive,
        nargs="+",
        metavar="N",
        default=SIZES,
        help=f"sizes of the conversations that are resumed (default {SIZES})",
    )
    parser.add_argument(
        "--new-tokens",
        type=positive,
        nargs="+",
        metavar="N",
        default=NEW_TOKENS,
        help=f"lengths of the messages that go on (default {NEW_TOKENS})",
    )
    parser.add_argument(
        "--threads", type=positive, default=os.cpu_count(), help="-t of the servers (default: all cores)"
    )
    parser.add_argument("--only", choices=("resume", "stalls"), help="leave the other part out")
    options = parser.parse_args()

    print(
        f"{describe_machine()}, {options.rounds} rounds, {options.threads} threads",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        model = directory / "random-1b-q4_0.gguf"
        write_random_model(model)
        for size in options.known_tokens if options.only != "stalls" else ():
            with Bench(model, directory, context_for(size, options.new_tokens), options.threads) as bench:
                cold, samples = measure_resume(bench, size, options.new_tokens, options.rounds)
            for length, found in samples.items():
                print(resume_table(size, length, cold, found).markdown(), flush=True)
        if options.only != "resume":
            with Bench(model, directory, STREAM_TOKENS, options.threads) as bench:
                print(
                    stalls_table(STALL_TOKENS, measure_stalls(bench, options.rounds, STALL_TOKENS)).markdown()
                )
    print(f"\nafterwards: {load_average()}")


if __name__ == "__main__":
    main()
