"""The load generator, from the side of those who measure."""

import subprocess
import sys
from types import TracebackType
from typing import Self

import msgspec

from load.benchmark.client import Outcome, Plan


class LoadGenerator:
    """Runs `load.benchmark.client` as a process. One plan at a time; a context manager, which ends it."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "load.benchmark.client"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, plan: Plan) -> Outcome:
        """Carry out a plan. Raises RuntimeError where a request was not answered with 200."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(plan) + b"\n")
        self._process.stdin.flush()
        outcome = msgspec.json.decode(self._process.stdout.readline(), type=Outcome)
        if outcome.error:
            raise RuntimeError(f"a request to {plan.url} failed: {outcome.error}")
        return outcome
