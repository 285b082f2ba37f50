"""Drives a tier of the C++ library by atlas-tier-test, call by call."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.server.harness import REPOSITORY

PROGRAM = Path(os.environ.get("ATLAS_TEST_TIER_PROGRAM", REPOSITORY / "build/bin/atlas-tier-test"))
UNHURRIED_MS = 30_000
# How much later than its deadline a call may end in a test: machines are busy.
SLACK_MS = 1500


def program() -> Path:
    """The test program, which has to be built."""
    assert PROGRAM.exists(), f"{PROGRAM} is missing; build it: cmake --build build --target atlas-tier-test"
    return PROGRAM


@dataclass(frozen=True)
class Answer:
    """What a call did: its time, and its failure or what it gave."""

    ms: float
    failure: str | None = None
    text: str = ""
    found: Sequence[bool] = ()
    sizes: Sequence[int] = ()
    wrong: int = 0
    """Values that were not what put() makes of their key and size."""


class Tier:
    """One tier, one call after the other."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.address = self._line()

    def put(self, key: str, n_bytes: int = 100, *, ttl: int = 600, ms: int = UNHURRIED_MS) -> Answer:
        """Store a value of so many bytes."""
        return self._call("put", ms, ttl, key, n_bytes)

    def get(self, *keys: str, ms: int = UNHURRIED_MS) -> Answer:
        """Get values, as far as there are any."""
        return self._call("get", ms, *keys)

    def probe(self, *keys: str, ms: int = UNHURRIED_MS) -> Answer:
        """Ask for keys."""
        return self._call("probe", ms, *keys)

    def keep(self, *keys: str, ttl: int = 600, ms: int = UNHURRIED_MS) -> Answer:
        """Keep values for longer."""
        return self._call("keep", ms, ttl, *keys)

    def remove(self, *keys: str, ms: int = UNHURRIED_MS) -> Answer:
        """Remove values."""
        return self._call("remove", ms, *keys)

    def ping(self, ms: int = UNHURRIED_MS) -> Answer:
        """Whether it works."""
        return self._call("ping", ms)

    def send(self, *words: object) -> None:
        """Begin a call; answer() has what comes of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Answer:
        """Of the call that was begun."""
        return Answer(**json.loads(self._line()))

    @property
    def resident_bytes(self) -> int:
        """What the process has in RAM."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def _call(self, *words: object) -> Answer:
        self.send(*words)
        return self.answer()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the program ended with status {self._process.wait(30)}"
        return line.rstrip("\n")


@contextmanager
def tier_of(url: str, environment: Mapping[str, str] | None = None) -> Iterator[Tier]:
    """The tier of a URL. Its process has SIGPIPE as programs have it that do nothing about it."""
    process = subprocess.Popen(
        [program(), "--drive", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    with process:
        try:
            yield Tier(process)
        finally:
            process.kill()


def problem_of(url: str, environment: Mapping[str, str] | None = None) -> str:
    """The error of a URL that is refused."""
    done = subprocess.run(
        [program(), "--drive", url],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(environment or {})},
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stdout


def is_in_time(answer: Answer, ms: int) -> bool:
    """Whether a call that came to nothing ended at its deadline."""
    return answer.ms < ms + SLACK_MS
