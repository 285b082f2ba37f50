"""What programs that are compiled with native/include have of it in themselves: native/abi.txt.

With another ABI they have to be compiled anew, which ATLAS_API_VERSION tells the loader. Only what is the
same with every supported compiler is looked at: names of functions, sizes, places, numbers.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from atlas_build.console import REPOSITORY

RECORD = REPOSITORY / "native/abi.txt"
VERSION = REPOSITORY / "native/api/CMakeLists.txt"

_HEAD = """\
# What programs that were compiled with native/include have of it in themselves. `tools/abi` writes this file,
# `tools/abi --release` where the number goes out with a release: from then on each change raises it.
"""
_NUMBER = re.compile(r"^ATLAS_API_VERSION (\d+), (not released|released)$", re.MULTILINE)
_STRING = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >"
_BYTES = "std::vector<unsigned char, std::allocator<unsigned char> >"
_JSON = re.compile(rf"nlohmann::(json_abi_\w+)::basic_json<nlohmann::\w+::ordered_map, .*?, {_BYTES}, void>")


@dataclass(frozen=True)
class Abi:
    """A number, and what it stands for: a line each, in the order of the alphabet."""

    number: int
    is_released: bool
    lines: tuple[str, ...]

    def __str__(self) -> str:
        """The text of the file."""
        state = "released" if self.is_released else "not released"
        return f"{_HEAD}ATLAS_API_VERSION {self.number}, {state}\n" + "".join(
            f"{line}\n" for line in self.lines
        )


def read(text: str) -> Abi:
    """What the file says. Raises ValueError where that is not its form."""
    head = _NUMBER.search(text)
    if head is None:
        raise ValueError("there is no ATLAS_API_VERSION")
    return Abi(int(head[1]), head[2] == "released", tuple(text[head.end() :].split("\n")[1:-1]))


def functions(symbols: str) -> Iterator[str]:
    """What `nm --demangle` says of a library, but for what is inline and so in the program anyway."""
    for line in symbols.splitlines():
        _, kind, name = line.split(maxsplit=2)
        if kind == "T":
            name = name.partition("@@")[0].replace("[abi:cxx11]", "").replace(_STRING, "std::string")
            yield from (f"json: {version}" for version in _JSON.findall(name))
            yield _JSON.sub("json", name)


def built(build: Path) -> tuple[str, ...]:
    """What the library of a build tree has, with its program atlas-abi."""
    symbols = subprocess.check_output(
        ["nm", "--dynamic", "--defined-only", "--demangle", build / "bin/libatlas.so"], text=True
    )
    layout = subprocess.check_output([build / "bin/atlas-abi"], text=True)
    return tuple(sorted({*functions(symbols), *layout.splitlines()}))


def number_of(cmake: str) -> int:
    """ATLAS_API_VERSION, which native/api/CMakeLists.txt sets."""
    found = re.search(r"^set\(ATLAS_API_VERSION (\d+)\)$", cmake, re.MULTILINE)
    if found is None:
        raise ValueError("there is no ATLAS_API_VERSION")
    return int(found[1])


def problems(recorded: Abi, number: int, lines: Iterable[str]) -> Iterator[str]:
    """What is not as the file says, behind a line that says what to do; nothing where all is."""
    gone, new = sorted(set(recorded.lines) - set(lines)), sorted(set(lines) - set(recorded.lines))
    if gone and number == recorded.number and recorded.is_released:
        yield (
            "programs that were compiled before do not work with this library: "
            f"raise ATLAS_API_VERSION to {number + 1} in native/api/CMakeLists.txt, then run tools/abi"
        )
    elif gone or new or number != recorded.number:
        yield "native/abi.txt is not what is built: write it anew, by tools/abi"
    yield from (f"- {line}" for line in gone)
    yield from (f"+ {line}" for line in new)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="abi", description="Write native/abi.txt of what is built in build/."
    )
    parser.add_argument("--release", action="store_true", help="the number goes out with a release")
    is_release = parser.parse_args().release
    lines = built(REPOSITORY / "build")
    number = number_of(VERSION.read_text(encoding="utf-8"))
    recorded = read(RECORD.read_text(encoding="utf-8"))
    advice, *differences = [*problems(recorded, number, lines)] or [""]
    sys.stdout.writelines(f"{line}\n" for line in differences)
    if advice.startswith("programs"):
        sys.stderr.write(f"abi: {advice}\n")
        return 1
    is_released = is_release or (recorded.is_released and number == recorded.number)
    RECORD.write_text(str(Abi(number, is_released, lines)), encoding="utf-8")
    return 0
