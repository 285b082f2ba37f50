"""What the command lines have in common."""

import argparse
import math
from pathlib import Path


def positive(text: str) -> int:
    """An integer of at least 1. Raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def positive_number(text: str) -> float:
    """A number above 0. Raises argparse.ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return number


def require_binaries(parser: argparse.ArgumentParser, *binaries: Path) -> None:
    """End with a usage error where one is not built."""
    for binary in binaries:
        if not binary.is_file():
            parser.error(f"there is no {binary}; run `make build build-stock`")
