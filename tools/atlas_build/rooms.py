"""Checks that each room of native/ includes only what it may know."""

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from atlas_build.console import REPOSITORY

# Each room may include itself and those named. `include` is what others include: the contract with Python.
ROOMS: Mapping[str, tuple[str, ...]] = {
    "include": (),
    "core/base": ("include",),
    "core/seal": ("include", "core/base"),
    "core/settings": ("include", "core/base"),
    "core/tiers": ("include", "core/base"),
    "core/memory": ("include", "core/base", "core/seal", "core/settings", "core/tiers"),
    "core/records": ("include", "core/base", "core/seal", "core/tiers", "core/memory"),
    "core/metrics": ("include", "core/base", "core/memory"),
    "core/hooks": ("include", "core/base", "core/tiers"),
    "core/requests": (
        "include",
        "core/base",
        "core/seal",
        "core/settings",
        "core/memory",
        "core/metrics",
        "core/hooks",
    ),
    "core/python": ("include", "core/base", "core/hooks"),
    "core/runtime": (
        "include",
        "core/base",
        "core/seal",
        "core/settings",
        "core/tiers",
        "core/memory",
        "core/records",
        "core/metrics",
        "core/hooks",
        "core/requests",
        "core/python",
    ),
    "llama": ("include", "core/base", "core/seal", "core/memory"),
}
# Beside the rooms' own headers, core uses these, which llama.cpp vendors.
VENDORED = re.compile(r"(nlohmann|hash)/|toml\+\+/")
# Headers of llama.cpp and of its programs, by what follows #include.
FOREIGN = re.compile(
    r"(src/)?(ggml|gguf|llama|common|server|chat|sampling|arg|mtmd|build-info|json-schema|unicode)\b"
)
# What a room may know of it all the same: libllama, but nothing that is built upon it.
ALLOWED: Mapping[str, re.Pattern[str]] = {"llama": re.compile(r"(src/)?llama[-.]")}
_INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def room_of(path: Path, native: Path) -> str:
    """The directory that a file is in, as ROOMS has it."""
    return path.relative_to(native).parent.as_posix()


def _is_foreign(name: str, room: str) -> bool:
    allowed = ALLOWED.get(room)
    return bool(FOREIGN.match(name) and not (allowed and allowed.match(name)))


def problems(native: Path) -> Iterator[str]:
    """A line for each include that a file of a room may not have."""
    files = sorted(path for path in native.rglob("*") if path.suffix in (".h", ".hpp", ".c", ".cpp", ".def"))
    rooms = {path.name: room_of(path, native) for path in files}
    for path in files:
        room = room_of(path, native)
        if room not in ROOMS:
            continue
        allowed = {room, *ROOMS[room]}
        for quoted, bracketed in _INCLUDE.findall(path.read_text(encoding="utf-8")):
            name = quoted or bracketed
            where = f"{path.relative_to(native.parent)} includes {name}"
            of = rooms.get(name.rpartition("/")[2]) if quoted else None
            if of is not None and of not in allowed:
                yield f"{where} of {of}, which {room} must not know"
            elif of is None and not VENDORED.match(name) and _is_foreign(name, room):
                yield f"{where}, which is llama.cpp's"


def main() -> int:
    """Prints the problems; the exit status."""
    parser = argparse.ArgumentParser(prog="tools/rooms", description=__doc__)
    parser.parse_args()
    found = list(problems(REPOSITORY / "native"))
    for problem in found:
        print(problem)
    return 1 if found else 0
