"""What the command line tools share: one kind of expected failure and how it is shown."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class BuildError(Exception):
    """An expected failure. The message names what is wrong and says what to do."""


def exit_status(work: Callable[[], None]) -> int:
    """Run `work`; an expected failure becomes `error: …` on standard error and status 1."""
    try:
        work()
    except (BuildError, OSError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; run it again to start over", file=sys.stderr)
        return 130
    return 0


def path_argument(text: str) -> Path:
    """An argparse type that refuses the empty string, which an unset variable of the caller leaves behind."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)
