"""Runs a load profile against a llama-server, which it starts unless a URL is given; docs/load-testing.md.

Options after `--` go to the llama-server that is started. The status is Locust's: 0 when nothing failed.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.server.harness import BINARY, MODEL, STOCK_BINARY, Server, ServerExitedError  # noqa: E402

CANNOT_RUN = 2

# Slots with the context that the demo model was trained on, and a core left for Locust.
THREADS = str(max(1, (os.cpu_count() or 1) - 1))
SERVER_OPTIONS = ["-np", "4", "-c", "8192", "-t", THREADS, "--no-webui"]


def run_locust(options: argparse.Namespace, url: str) -> int:
    """Run Locust to its end; its exit status."""
    reports: Path = options.reports
    reports.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "locust", "-f", REPOSITORY / "load/locustfile.py", "--headless"]
    command += ["--host", url, "--profile", options.profile, "--seed", options.seed]
    command += ["--think-time", options.think_time, "--run-time", options.duration]
    command += ["--users", options.users, "--spawn-rate", options.users]
    command += ["--only-summary", "--loglevel", "WARNING"]
    # with a file for its JSON, Locust leaves printing to the summary
    command += ["--json-file", reports / "statistics"]
    command += ["--html", reports / "report.html", "--csv", reports / "statistics"]
    command += ["--summary", reports / "summary.json"]
    # Locust ends its run at Ctrl-C, and has reports to write.
    signal.signal(signal.SIGINT, lambda *_: None)
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL).returncode


def main() -> int:
    """Parse the command line and run; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="mix", help="kind of users (default mix)")
    parser.add_argument("--users", type=int, default=8, help="users at once (default 8)")
    parser.add_argument("--duration", default="60s", help="such as 90s or 5m (default 60s)")
    parser.add_argument("--seed", default="1", help="decides all prompts and their order (default 1)")
    parser.add_argument(
        "--think-time", default="1", help="mean seconds between a user's requests (default 1)"
    )
    parser.add_argument("--url", help="a llama-server that runs already")
    parser.add_argument("--stock", action="store_true", help="start the untouched llama-server")
    parser.add_argument("--model", type=Path, default=MODEL, help="model to start it with (default: demo)")
    parser.add_argument("--reports", type=Path, help="directory (default load-reports/PROFILE[-stock])")
    parser.add_argument("server", nargs="*", help="options of the llama-server")
    options = parser.parse_args()
    if options.url and (options.stock or options.server):
        parser.error("--stock and options of a server are for one that is started: leave --url out")
    if options.reports is None:
        suffix = "-stock" if options.stock else ""
        options.reports = REPOSITORY / "load-reports" / f"{options.profile}{suffix}"

    with ExitStack() as stack:
        if options.url:
            url = options.url
        else:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            memory: list[str | Path] = [] if options.stock else ["--atlas-memory-path", directory / "memory"]
            binary = STOCK_BINARY if options.stock else BINARY
            server = Server(
                [*SERVER_OPTIONS, *memory, *options.server],
                directory=directory,
                binary=binary,
                model=options.model,
            )
            try:
                url = stack.enter_context(server).url
            except (ServerExitedError, OSError) as error:
                parser.exit(CANNOT_RUN, f"load: {binary} does not start: {error}\n")
        status = run_locust(options, url)
        if status != CANNOT_RUN:
            print(f"reports: {options.reports}")
        return status


if __name__ == "__main__":
    sys.exit(main())
