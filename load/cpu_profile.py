"""Draws where the servers' CPU time goes under load: flame graphs of stock and of ATLAS, by perf.

Prints, as Markdown, the share of each library. Writes for each server NAME.html, which zooms with the wheel
and names what the mouse is on, and NAME.folded, one stack a line as flamegraph.pl and speedscope read it.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from load.arguments import positive, require_binaries
from load.benchmark.client import Plan
from load.benchmark.generator import LoadGenerator
from load.benchmark.servers import OPTIONS
from load.flamegraph import Frame, Stacks, draw, fold
from load.machine import describe_machine
from load.report import Table
from tests.server.harness import BINARY, STOCK_BINARY, Server

REPORTS = Path("build-reports/profile")
CLIENTS = 8
# By name: the binary, and what requests carry in `atlas`.
CASES: Mapping[str, tuple[Path, dict[str, Any] | None]] = {
    "stock": (STOCK_BINARY, None),
    "atlas-plain": (BINARY, None),
    "atlas-object": (BINARY, {}),
}
# Not a divisor of what runs on round intervals.
SAMPLES_PER_SECOND = "499"
# How much of each stack is copied, for unwinding: release builds keep no frame pointers. Bytes.
STACK_COPY = 16_384

_FRAME = re.compile(r"^\s*[0-9a-f]+ (?P<symbol>.*) \((?P<library>[^()]*)\)$")
_LIBRARY_VERSION = re.compile(r"(-\d+\.\d+)?\.so[.\d]*$")


def library_of(symbol: str, path: str) -> str:
    """The short name of the library that a function is in."""
    if "atlas" in symbol.lower() or "atlas" in Path(path).name:
        return "ATLAS"
    if path == "[unknown]":
        return "unknown"
    if path.startswith("[") or path.endswith(".ko"):
        return "kernel"
    return _LIBRARY_VERSION.sub("", Path(path).name)


def read_stacks(lines: Iterable[str]) -> Stacks:
    """What `perf script -F ip,sym,dso` prints: outermost frame first, with the number of samples."""
    stacks: Stacks = Counter()
    for is_stack, group in groupby(lines, key=lambda line: not line.isspace()):
        if is_stack:
            found = [match for line in group if (match := _FRAME.match(line.rstrip()))]
            frames = [Frame(each["symbol"], library_of(each["symbol"], each["library"])) for each in found]
            if frames:
                stacks[tuple(reversed(frames))] += 1
    return stacks


def share_table(profiles: dict[str, Stacks]) -> Table:
    """The part of the CPU time that each library's own code took, by server."""
    own = {name: Counter[str]() for name in profiles}
    for name, stacks in profiles.items():
        for stack, count in stacks.items():
            own[name][stack[-1].library] += count
    libraries = sum(own.values(), Counter[str]()).most_common()
    rows = [
        [library, *(f"{own[name][library] / stacks.total():.2%}" for name, stacks in profiles.items())]
        for library, _ in libraries
    ]
    samples = ", ".join(f"{stacks.total():,}" for stacks in profiles.values())
    note = f"Of {samples} samples; {CLIENTS} clients; functions by where their own code is."
    return Table("CPU time by library", note, ["library", *profiles], rows)


def check_perf() -> None:
    """Raises RuntimeError, which says what to do, where perf cannot profile."""
    if shutil.which("perf") is None:
        raise RuntimeError("there is no perf; Debian has it in linux-perf, Ubuntu in linux-tools-generic")
    trial = subprocess.run(
        ["perf", "record", "-e", "cpu-clock", "-o", "/dev/null", "--", "true"], capture_output=True, text=True
    )
    if trial.returncode:
        raise RuntimeError(
            "perf may not profile here; as root, outside of containers: sysctl kernel.perf_event_paranoid=1. "
            f"It said:\n{trial.stderr.strip()}"
        )


def profile(server: Server, plan: Plan, generator: LoadGenerator, directory: Path) -> Stacks:
    """The server's stacks while a plan is carried out, after one that warms it up."""
    assert server.process is not None
    generator.run(Plan(server.url, CLIENTS, CLIENTS, plan.seed + 1, atlas=plan.atlas))
    data = directory / "perf.data"
    how = ["-q", "-e", "cpu-clock", "-F", SAMPLES_PER_SECOND, "--call-graph", f"dwarf,{STACK_COPY}"]
    recorder = subprocess.Popen(["perf", "record", *how, "-p", str(server.process.pid), "-o", data])
    try:
        generator.run(plan)
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait()
    script = ["perf", "script", "-i", str(data), "-F", "ip,sym,dso", "--no-inline"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as reader:
        assert reader.stdout is not None
        return read_stacks(reader.stdout)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="make profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--requests", type=positive, default=400, help="how many each server gets (default %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=REPORTS, help="where the graphs go (%(default)s)"
    )
    options = parser.parse_args()
    try:
        check_perf()
    except RuntimeError as error:
        parser.exit(1, f"profile: {error}\n")
    require_binaries(parser, BINARY, STOCK_BINARY)
    machine = describe_machine()
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    profiles: dict[str, Stacks] = {}
    with tempfile.TemporaryDirectory() as name, LoadGenerator() as generator:
        for case, (binary, atlas) in CASES.items():
            print(f"profile: {case}", file=sys.stderr, flush=True)
            directory = Path(name) / case
            directory.mkdir()
            memory = {"ATLAS_MEMORY_PATH": str(directory / "memory")}
            with Server(OPTIONS, memory, directory=directory, binary=binary) as server:
                plan = Plan(server.url, CLIENTS, options.requests, seed=1, atlas=atlas)
                profiles[case] = stacks = profile(server, plan, generator, directory)
            if not stacks:
                parser.exit(1, f"profile: perf took no sample of {case}; give it more --requests\n")
            (output / f"{case}.folded").write_text(fold(stacks), encoding="utf-8")
            (output / f"{case}.html").write_text(draw(f"{case}: {machine}", stacks), encoding="utf-8")
    print(f"{machine}\n\n{share_table(profiles).markdown()}")
    print(f"profile: written: {output}/*.html and *.folded", file=sys.stderr)


if __name__ == "__main__":
    main()
