"""What of the patch series another llama.cpp tree refuses."""

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from atlas_build.git import git
from atlas_build.patchfile import FileChange, Patch, encode


@dataclass(frozen=True)
class Refusal:
    """A hunk that found no place; `line` is where it was in the tree that the patch was made for."""

    patch: str
    path: str
    line: int
    hunk: int
    hunks: int

    def __str__(self) -> str:
        return f"{self.patch}: {self.path}:{self.line} (hunk {self.hunk} of {self.hunks})"


def find_refusals(series: Sequence[Patch], tree: Path) -> list[Refusal]:
    """The hunks that `tree` refuses, in order, each patch on what the ones before it left.

    The tree stays as it is. A hunk that builds on a refused one is refused as well, as is one whose context
    differs by a single line.
    """
    paths = {change.path for patch in series for change in patch.changes}
    with tempfile.TemporaryDirectory(prefix="atlas-drift-") as scratch:
        copy = Path(scratch)
        for path in paths:
            if (tree / path).is_file():
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(tree / path, copy / path)
        return [
            Refusal(patch.name, change.path, change.hunks[number - 1], number, len(change.hunks))
            for patch in series
            for change, section in zip(patch.changes, _sections(patch), strict=True)
            for number in _apply(copy, change, section)
        ]


def _sections(patch: Patch) -> Iterator[str]:
    """The diff of each file."""
    starts = [match.start() for match in re.finditer(r"^diff --git ", patch.diff, re.MULTILINE)]
    for start, end in zip(starts, [*starts[1:], len(patch.diff)], strict=True):
        yield patch.diff[start:end]


def _apply(copy: Path, change: FileChange, section: str) -> list[int]:
    """Apply what fits to the copy; return the numbers, from 1, of the hunks that do not."""
    file = copy / ".section"
    file.write_bytes(encode(section))
    done = git("apply", "--reject", file.name, cwd=copy)
    if not done.status:
        return []
    rejected = [int(number) for number in re.findall(r"^Rejected hunk #(\d+)", done.errors, re.MULTILINE)]
    return rejected or list(range(1, len(change.hunks) + 1))
