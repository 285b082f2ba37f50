"""Runs tests on a llama-server compiled with a sanitizer, and fails when it reports anything.

    python -m tests.sanitizers BUILD [PYTEST-ARGUMENT ...]

BUILD is a build tree made with -DATLAS_SANITIZE=…; reports go to BUILD/reports. Without further arguments
the tests are those of chats, restores, sessions, plugins, what servers share, the end of the process, and
clients that leave or come at once.
`make sanitize-server` calls this.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.server.harness import REPOSITORY

TESTS = [
    "test_memory.py",
    "test_memory_isolation.py",
    "test_isolation_concurrent.py",
    "test_sessions.py",
    "test_history.py",
    "test_batch_size.py",
    "test_plugins.py",
    "test_signals_and_threads_of_plugins.py",
    "test_start_and_stop.py",
    "test_preload.py",
    "test_soak.py",
    "test_hang_ups.py",
    "test_conversation_streams.py",
    "test_end_with_clients.py",
    "test_request_hooks.py",
    "test_shared_memory.py",
]


def options(reports: Path) -> dict[str, str]:
    """The variables that the sanitizers' run-time libraries read.

    Leaks, of threads too, are not looked for: the interpreter is never finalised, and what belongs to
    the process lives until its end. Nor are globals that two libraries have: upstream links cpp-httplib
    into two.
    """
    common = f"log_path={reports / 'report'}:print_stacktrace=1"
    return {
        "TSAN_OPTIONS": f"{common}:history_size=4:report_thread_leaks=0:exitcode=0",
        "ASAN_OPTIONS": f"{common}:detect_leaks=0:detect_odr_violation=0",
        "UBSAN_OPTIONS": common,
    }


def main() -> int:
    """The exit status: that of pytest, or 1 when there are reports."""
    build = Path(sys.argv[1]).resolve()
    reports = build / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    tests = sys.argv[2:] or [str(REPOSITORY / "tests/server" / name) for name in TESTS]
    environment = os.environ | {"ATLAS_TEST_BINARY": str(build / "bin/llama-server")} | options(reports)
    status = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=REPOSITORY,
        env=environment,
        check=False,
    ).returncode
    found = sorted(reports.iterdir())
    for report in found:
        sys.stderr.write(f"{report}:\n{report.read_text(encoding='utf-8', errors='replace')}\n")
    sys.stderr.write(f"{len(found)} processes reported something; what they said is in {reports}\n")
    return status or bool(found)


if __name__ == "__main__":
    sys.exit(main())
