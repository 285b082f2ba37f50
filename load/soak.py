"""Runs a server for a long time with many clients, good and bad, whose sessions come and go.

Notes memory, threads and descriptors, and, while the clients pause, the latency of a plain request, and says
whether memory and latency stay flat, and whether all threads and descriptors are gone when the clients are.
Prints Markdown, and writes report.md, report.html, report.json and server.log. Exits with 1 where one is not.
"""

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from load.arguments import positive_number, require_binaries
from load.estimates import slope
from load.machine import describe_machine
from load.process import descriptor_count, resident_mib, thread_count
from load.report import Chart, Table, page
from tests.server.conversations import memory_options, wait_for_memory
from tests.server.harness import BINARY, Server
from tests.server.soaking import CLIENTS, IDLE, LIMITS, SLOTS, Client, Turnstile, pool, soak

REPORTS = Path("build-reports/soak")
# Small layers, so that they are full, and evict, soon after the start.
LAYERS = ["--atlas-l1-cache-size", str(32 << 20), "--atlas-l2-cache-size", str(128 << 20)]
SAMPLES = 240
# One after the other while the clients pause: how long one waits beside them says what they just do.
PROBES = 16
PROBE = {"prompt": "My name is Nora.", "n_predict": 4, "cache_prompt": False}

TIME = "minutes"
# How much of its median a figure may rise over the time observed and still be flat: what buffers, caches and
# the allocator do, and for the latency what else the machine does.
ALLOWED_RISE = {"resident, MiB": 0.05, "latency, ms": 0.25}
# These follow the connections that are open at once, by chance sometimes many. So they have to be what they
# were before, once the clients have left.
COUNTS = ("threads", "descriptors")
FIGURES = ("resident, MiB", *COUNTS, "latency, ms")
# cpp-httplib ends a thread that was idle for three seconds.
IDLE_THREAD_S = 3.5
PATIENCE_S = 30.0
# The first part is not judged: layers fill, threads and connections are made as they are first needed. Nor is
# what follows until the eviction policy knows about as many entries as it will, 200 bytes each and bounded
# (docs/eviction.md), but for the last part, which is judged in any case.
WARM_UP, LAST_PART = 1 / 3, 1 / 3
KNOWN = "entries known to eviction"
ABOUT_ALL = 0.95

Samples = dict[str, list[float]]
Counts = dict[str, int]


def counts(server: Server) -> Counts:
    """Threads and descriptors that a server has now."""
    assert server.process is not None
    pid = server.process.pid
    return {"threads": thread_count(pid), "descriptors": descriptor_count(pid)}


def counts_before(server: Server) -> Counts:
    """What an idle server has, once it has started all that it starts."""
    found = counts(server)
    while True:
        time.sleep(IDLE_THREAD_S)
        earlier, found = found, counts(server)
        if found == earlier:
            return found


def counts_afterwards(server: Server, before: Counts) -> Counts:
    """What is left when the clients are gone, as soon as that is no more than before, or PATIENCE_S later."""
    deadline = time.monotonic() + PATIENCE_S
    left = counts(server)
    while grown(before, left) and time.monotonic() < deadline:
        time.sleep(0.5)
        left = counts(server)
    return left


def grown(before: Counts, after: Counts) -> list[str]:
    """Which counts are larger than before."""
    return [name for name in COUNTS if after[name] > before[name]]


def observe(server: Server, turnstile: Turnstile, interval: float, stopping: threading.Event) -> Samples:
    """Look at a server every `interval` seconds until `stopping` is set. Raises for a probe that fails."""
    assert server.process is not None
    pid = server.process.pid
    samples: Samples = {name: [] for name in (TIME, *FIGURES, KNOWN)}
    start = time.monotonic()
    while not stopping.wait(interval):
        minutes = (time.monotonic() - start) / 60
        held = resident_mib(pid), *counts(server).values()
        policy = server.get("/v1/atlas/status").json()["data"]["memory_policy"]
        found = (minutes, *held, latency_ms(server, turnstile), float(policy["known_entries"]))
        for name, value in zip(samples, found, strict=True):
            samples[name].append(value)
    return samples


def latency_ms(server: Server, turnstile: Turnstile) -> float:
    """What a plain request takes while there is no other; the median of some."""
    times = []
    with turnstile.closed():
        server.wait_until(lambda: pool(server) == IDLE)
        for _ in range(PROBES):
            began = time.perf_counter()
            server.post("/completion", PROBE).raise_for_status()
            times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def describe_end(server: Server) -> str:
    """Whether the server still runs, or how it ended."""
    assert server.process is not None
    status = server.process.poll()
    return "the server runs on" if status is None else f"the server ended with status {status}"


def judged_from(samples: Samples) -> float:
    """The minute from which figures have to be flat."""
    end, all_known = samples[TIME][-1], max(samples[KNOWN])
    pairs = zip(samples[TIME], samples[KNOWN], strict=True)
    settled = next(minute for minute, known in pairs if known >= ABOUT_ALL * all_known)
    return min(max(settled, end * WARM_UP), end * (1 - LAST_PART))


def rises(samples: Samples) -> dict[str, float]:
    """How much of its median each figure rises after the warm-up, by its slope; below 0 it falls.

    Raises ValueError where there are not two samples after it.
    """
    begin = judged_from(samples)
    after = [at for at, minute in enumerate(samples[TIME]) if minute >= begin]
    times = [samples[TIME][at] for at in after]
    found = {}
    for name in FIGURES:
        values = [samples[name][at] for at in after]
        found[name] = slope(times, values) * (times[-1] - times[0]) / statistics.median(values)
    return found


def faults(samples: Samples, before: Counts, after: Counts) -> dict[str, str]:
    """What is not as it has to be, by figure."""
    found = {name: f"{after[name]} afterwards" for name in grown(before, after)}
    return found | {
        name: "rises" for name, rise in rises(samples).items() if rise > ALLOWED_RISE.get(name, math.inf)
    }


def table(samples: Samples, before: Counts, after: Counts) -> Table:
    """What each figure was, and whether it is flat."""
    rows = []
    wrong = faults(samples, before, after)
    for name, rise in rises(samples).items():
        values = samples[name]
        allowed = f"{ALLOWED_RISE[name]:.0%}" if name in ALLOWED_RISE else f"{before[name]} afterwards"
        verdict = f"**{wrong[name]}**" if name in wrong else "flat"
        spread = f"{min(values):,.1f} to {max(values):,.1f}"
        median = f"{statistics.median(values):,.1f}"
        rows.append([name, median, spread, f"{rise:+.1%}", allowed, verdict])
    known = samples[KNOWN]
    rows.append(
        [KNOWN, f"{statistics.median(known):,.0f}", f"{min(known):,.0f} to {max(known):,.0f}", "", "", ""]
    )
    note = (
        f"{CLIENTS} clients for {samples[TIME][-1]:.1f} minutes, {len(samples[TIME])} samples. "
        f"The rise is Theil and Sen's slope from minute {judged_from(samples):.1f} on, over that time, "
        "of the median."
    )
    return Table("Soak", note, ["figure", "median", "range", "rise", "allowed", ""], rows)


def chart(samples: Samples) -> Chart:
    """Each figure over time."""
    rows = [
        {"figure": name, TIME: minute, "value": value}
        for name in (*FIGURES, KNOWN)
        for minute, value in zip(samples[TIME], samples[name], strict=True)
    ]
    return Chart(
        {
            "data": {"values": rows},
            "facet": {"row": {"field": "figure", "sort": None, "title": None}},
            "resolve": {"scale": {"y": "independent"}},
            "spec": {
                "width": 700,
                "height": 120,
                "mark": {"type": "line", "interpolate": "step-after"},
                "encoding": {
                    "x": {"field": TIME, "type": "quantitative"},
                    "y": {
                        "field": "value",
                        "type": "quantitative",
                        "title": None,
                        "scale": {"zero": False},
                    },
                },
            },
        }
    )


def write_reports(found: Table, samples: Samples, record: dict[str, Any], output: Path) -> None:
    """Print the table, and write all of it to a directory."""
    text = f"{record['machine']}\n\n{found.markdown()}"
    print(text)
    (output / "report.md").write_text(text, encoding="utf-8")
    html = page(f"Soak: {record['machine']}", [found, chart(samples)])
    (output / "report.html").write_text(html, encoding="utf-8")
    (output / "report.json").write_text(json.dumps(record | {"samples": samples}, indent=1), encoding="utf-8")
    print(f"soak: written: {output}/report.html, report.json and report.md", file=sys.stderr)


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="make soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=positive_number, default=30, help="how long (default %(default)s)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=REPORTS, help="where the reports go (%(default)s)"
    )
    options = parser.parse_args()
    require_binaries(parser, BINARY)
    options.output.mkdir(parents=True, exist_ok=True)
    machine, requests, seconds = describe_machine(), Counter[str](), options.minutes * 60.0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        arguments = [*memory_options(directory), "-np", str(SLOTS), *LAYERS, *LIMITS]
        with Server(arguments, directory=directory) as server:
            wait_for_memory(server)
            before = counts_before(server)
            clients = [Client(server, number, requests) for number in range(CLIENTS)]
            stopping, turnstile = threading.Event(), Turnstile()
            with ThreadPoolExecutor(1) as observer:
                observed = observer.submit(observe, server, turnstile, seconds / SAMPLES, stopping)
                try:
                    soak(clients, seconds, turnstile)
                except Exception:
                    print(f"soak: a client failed; {describe_end(server)}", file=sys.stderr)
                    raise
                finally:
                    stopping.set()
                    shutil.copy(server.log_path, options.output / "server.log")
            samples = observed.result()
            after = counts_afterwards(server, before)
    record = {"machine": machine, "requests": requests, "rises": rises(samples)}
    record |= {"before": before, "after": after}
    write_reports(table(samples, before, after), samples, record, options.output)
    return int(bool(faults(samples, before, after)))


if __name__ == "__main__":
    sys.exit(main())
