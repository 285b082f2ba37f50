"""Measures what copying a block of 256 tokens of state out of the context and into it costs the token loop.

For the demo model, and for one with as much KV as a model of 8B (128 KiB a token), with and without flash
attention: by the CPU, and with all layers on a device of ggml-rpc-server on the loopback. Needs the build of
`make test-rpc`. The device is idle while it is measured, as behind a batch that was computed.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from load.arguments import positive, require_binaries
from load.machine import describe_machine, load_average
from load.report import Table
from tests.archs.rpc import RPC_SERVER, rpc_device
from tests.server.conversations import NO_PRELOADING, flush, memory_status
from tests.server.gguf_files import write_wide_model
from tests.server.harness import BINARY, MODEL, Server
from tests.server.preloading import preloaded

N_TOKENS = 1600
CONTEXT = 2048

_TIMES = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <time.h>

#define GET _Z30llama_state_seq_get_data_rangeP13llama_contextPhmiRK16llama_cell_rangej
#define SET llama_state_seq_set_data_ext
#define NEXT(function) dlsym(RTLD_NEXT, NAME(function))
#define NAME(function) NAME_OF(function)
#define NAME_OF(function) #function

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static void note(const char * what, size_t n_bytes, double began) {
    const double ms = now() - began;
    FILE * file = fopen(PATH, "a");
    fprintf(file, "%s %zu %f\n", what, n_bytes, ms);
    fclose(file);
}

size_t GET(void * context, void * to, size_t size, int sequence, const void * range, unsigned flags) {
    size_t (*next)(void *, void *, size_t, int, const void *, unsigned) = NEXT(GET);
    const double began = now();
    const size_t n_bytes = next(context, to, size, sequence, range, flags);
    if (to) {
        note("out", n_bytes, began);
    }
    return n_bytes;
}

size_t SET(void * context, const void * from, size_t size, int sequence, unsigned flags) {
    size_t (*next)(void *, const void *, size_t, int, unsigned) = NEXT(SET);
    const double began = now();
    const size_t n_bytes = next(context, from, size, sequence, flags);
    note("in", size, began);
    return n_bytes;
}
"""


def spread(values: list[float]) -> str:
    """The median and the range."""
    return f"{statistics.median(values):,.2f} ({min(values):,.2f} to {max(values):,.2f})"


def measure(model: Path, device: list[str], attention: str, rounds: int, directory: Path) -> list[str]:
    """The size of a block in MiB, and ms for copying it out and in."""
    environment = preloaded(directory, "times", _TIMES)
    options = ["-c", str(CONTEXT), "-np", "1", "-fa", attention, *NO_PRELOADING, *device]
    found: dict[str, list[tuple[int, float]]] = {"out": [], "in": []}
    for number in range(rounds):
        memory = ["--atlas-memory-path", str(directory / f"memory-{number}")]
        (directory / "times").unlink(missing_ok=True)
        prompt = [5 + (number + position * 7) % 90 for position in range(N_TOKENS)]
        body = {"prompt": prompt, "n_predict": 1, "temperature": 0}
        with Server([*memory, *options], environment, directory=directory, model=model) as server:
            server.client.timeout = 600
            server.post("/completion", body).raise_for_status()
            flush(server)
            server.kill()
            server.start()
            server.wait_until(lambda: memory_status(server)["root"])
            assert server.post("/completion", body).json()["timings"]["cache_n"] == N_TOKENS - 1
        lines = (directory / "times").read_text(encoding="ascii").splitlines()
        for what in found:
            copies = [(int(size), float(ms)) for kind, size, ms in map(str.split, lines) if kind == what]
            # Not the first, which waits for the batch, nor the tail.
            largest = max(size for size, _ in copies)
            found[what] += [copy for copy in copies[1:] if copy[0] == largest]
    size = found["out"][0][0] / (1 << 20)
    return [f"{size:.1f}", *(spread([ms for _, ms in copies]) for copies in found.values())]


@contextmanager
def devices() -> Iterator[dict[str, list[str]]]:
    """Options by name."""
    with rpc_device() as rpc:
        yield {"CPU": [], "RPC": rpc}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench-copies", description=__doc__)
    parser.add_argument("--rounds", type=positive, default=3, help="conversations (default 3)")
    options = parser.parse_args()
    require_binaries(parser, BINARY, RPC_SERVER)
    print(f"{describe_machine()}\n", flush=True)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as name, devices() as all_devices:
        wide = write_wide_model(Path(name) / "wide.gguf", CONTEXT, layers=16, heads=8)
        models = {"demo": MODEL, "KV as of 8B": wide}
        for (title, model), (where, device), attention in product(
            models.items(), all_devices.items(), ("on", "off")
        ):
            with tempfile.TemporaryDirectory() as directory:
                found = measure(model, device, attention, options.rounds, Path(directory))
            rows.append([title, where, attention, *found])
    header = ["model", "layers on", "-fa", "MiB a block", "out, ms", "in, ms"]
    note = f"Medians and ranges of {options.rounds} conversations of {N_TOKENS} tokens."
    print(Table("Copying a block", note, header, rows).markdown())
    print(f"afterwards: {load_average()}")


if __name__ == "__main__":
    main()
