"""Lists of numbers and of sizes, as users write them."""

import re

_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"(\d+)\s*([A-Za-z]*)")


def parse_counts(text: str) -> list[int]:
    """Whole numbers of at least 1, separated by commas. Raises ValueError, naming the wrong one."""
    return [_count(part.strip()) for part in text.split(",")]


def parse_bytes(text: str) -> list[int]:
    """Sizes such as 1048576, 64MiB or 2GiB, separated by commas, in bytes. Raises ValueError likewise."""
    return [_bytes(part.strip()) for part in text.split(",")]


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text) or int(text) < 1:
        raise ValueError(f"'{text}' is no whole number of at least 1")
    return int(text)


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if not found or found[2] not in _UNITS or int(found[1]) < 1:
        raise ValueError(f"'{text}' is no size; write a whole number and B, KiB, MiB, GiB or TiB")
    return int(found[1]) * _UNITS[found[2]]


def format_bytes(size: int) -> str:
    """A size for people: in the largest unit that it has a whole number of."""
    unit = max((unit for unit in _UNITS if unit and size % _UNITS[unit] == 0), key=_UNITS.__getitem__)
    return f"{size // _UNITS[unit]:,} {unit}"
