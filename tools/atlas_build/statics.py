"""What of compiled C and C++ lives as long as the process and may change, by its symbol tables."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

# Sections that are written to while the program runs. To `.data.rel.ro` only the loader writes.
_WRITABLE = re.compile(r"\.(bss|tbss|tdata|data(?!\.rel\.ro))(\.|$)|\*COM\*")
# Of libraries' headers, and what the compiler makes for itself.
_FOREIGN = re.compile(r"(std|__gnu_cxx|nlohmann|toml)::|DW\.ref\.|guard variable for ")


@dataclass(frozen=True)
class Static:
    """An entry of native/statics.txt: which variables of which file live as long as the process, and why."""

    path: str
    pattern: str
    reason: str
    """Begins with `Constant:` where it is made when the program runs, and does not change after."""

    def names(self, path: str, symbol: str) -> bool:
        """Whether it names a symbol in the object file of a source; those of headers are in any."""
        is_there = self.path == path or self.path.endswith((".h", ".hpp"))
        return is_there and fnmatchcase(symbol, self.pattern)


def read(path: Path) -> list[Static]:
    """The entries of a file: a line `path: name, name` each, and behind it, indented, the reason."""
    entries: list[Static] = []
    for block in re.split(r"\n(?=\S)", path.read_text(encoding="utf-8")):
        head, _, reason = block.partition("\n")
        if not head.startswith("#"):
            where, _, patterns = head.partition(": ")
            entries += [
                Static(where, pattern, " ".join(reason.split()))
                for pattern in patterns.split(", ")
                if pattern
            ]
    return entries


def variables(path: Path) -> Iterator[str]:
    """The names of an object file's variables that live as long as the process or a thread."""
    table = subprocess.check_output(["nm", "--demangle", "--format=sysv", path], text=True)
    for line in table.splitlines():
        fields = [field.strip() for field in line.rsplit("|", 6)]
        if len(fields) == 7 and fields[3] in ("OBJECT", "TLS"):
            name, section = fields[0], fields[6]
            if _WRITABLE.match(section) and not _FOREIGN.match(name):
                yield name


def problems(found: Iterable[tuple[str, str]], entries: list[Static]) -> Iterator[str]:
    """A line for each variable, given with the path of its source, that no entry names, and the reverse.

    Constants need not be there: a compiler may make them before the program runs.
    """
    named: set[Static] = set()
    for path, symbol in sorted(found):
        of = [entry for entry in entries if entry.names(path, symbol)]
        named.update(of)
        if not of:
            yield f"{path} has the variable {symbol}, which outlives every object"
    for entry in entries:
        if not entry.reason:
            yield f"{entry.path}: {entry.pattern} has no reason"
        if entry not in named and not entry.reason.startswith("Constant:"):
            yield f"{entry.path} has no {entry.pattern} any more"
