"""Checks of the patch series: form (lint), truth against upstream's source (verify), size (stats)."""

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

from atlas_build.console import BuildError
from atlas_build.patchfile import SERIES, Patch, decode, encode, parse_patch, read_patches, read_series
from atlas_build.patchwork import PatchRepository, render_series
from atlas_build.source import Source
from atlas_build.unifdef import without_macro

# Changed lines that say something: neither blank nor of the preprocessor.
BUDGETS = {"seam": 250, "mend": 80}
# Where upstream changes most, each hunk is one that a rebase may have to place anew.
BUSY_FILE = "tools/server/server-context.cpp"
MOST_HUNKS = 21
# The folder of what is written up for upstream; no part of the series.
PROPOSALS = "upstream"
MACRO = "LLAMA_ATLAS"
_SUBJECT_LIMIT = 72
_TRAILERS = ("Forwarded", "Drop-When", "Guarded", "Kind")
_C_SUFFIXES = frozenset((".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".m"))


@dataclass(frozen=True)
class Size:
    """What the series costs: the lines that count, by kind of patch, and the hunks in the busiest file."""

    lines: Counter[str]
    hunks: int

    @classmethod
    def of(cls, series: Sequence[Patch]) -> "Size":
        lines: Counter[str] = Counter()
        for patch in series:
            lines[patch.kind] += counted_lines(patch)
        return cls(lines, sum(_busy_hunks(patch) for patch in series))

    def __str__(self) -> str:
        used = [
            f"{self.lines[kind]} of {budget} counted lines used by {kind}s"
            for kind, budget in BUDGETS.items()
        ]
        return "\n".join([*used, f"{self.hunks} of {MOST_HUNKS} hunks used in {BUSY_FILE}"])


def lint(patches: Path) -> list[str]:
    """Everything wrong with the form of the series, one line each; needs no source."""
    names = read_series(patches)
    allowed = {*names, SERIES, PROPOSALS, "README.md"}
    problems = [
        f"{file.name}: not listed in {SERIES}; add it there or delete it"
        for file in sorted(patches.iterdir())
        if file.name not in allowed
    ]
    series: list[Patch] = []
    for number, name in enumerate(names, 1):
        text = decode((patches / name).read_bytes())
        if not text.endswith("\n"):
            problems.append(f"{name}: does not end with a newline")
        try:
            patch = parse_patch(name, text)
            problems += [f"{name}: {problem}" for problem in _lint_patch(patch, number)]
        except BuildError as failure:
            problems.append(str(failure))
        else:
            series.append(patch)
    size = Size.of(series)
    problems += [
        f"{kind}s change {size.lines[kind]} lines, their budget is {budget}: move code into native/"
        for kind, budget in BUDGETS.items()
        if size.lines[kind] > budget
    ]
    if size.hunks > MOST_HUNKS:
        problems.append(f"{size.hunks} hunks in {BUSY_FILE}, at most {MOST_HUNKS} are allowed")
    return problems


def verify(patches: Path, source: Source) -> list[str]:
    """Check the series against `source`; return notes on what was not checked.

    Raises BuildError when a patch does not apply, when export would change a file, or when a file changed by
    none but patches that say `Guarded: yes` differs from upstream's with the macro undefined.
    """
    series = read_patches(patches)
    with tempfile.TemporaryDirectory(prefix="atlas-verify-") as scratch:
        repository = PatchRepository.create(Path(scratch) / "repository", source, "source")
        repository.apply(series)
        _check_canonical(series, repository.export(), patches)
        return _check_guards(series, repository)


def stats(patches: Path) -> str:
    """A table of the series: kind, files, lines added, removed and counted, hunks; then the budgets."""
    series = read_patches(patches)
    width = max([len(patch.name) for patch in series] + [len("total")])
    lines = [f"{'patch':{width}}  kind  files  added  removed  counted  hunks"]
    total: Counter[str] = Counter()
    for patch in series:
        row = Counter(
            added=sum(len(change.added) for change in patch.changes),
            removed=sum(len(change.removed) for change in patch.changes),
            counted=counted_lines(patch),
            hunks=sum(len(change.hunks) for change in patch.changes),
        )
        total += row
        lines.append(f"{patch.name:{width}}  {patch.kind:4}  {_columns(len(patch.changes), row)}")
    files = len({change.path for patch in series for change in patch.changes})
    lines.append(f"{'total':{width}}        {_columns(files, total)}")
    return "\n".join([*lines, str(Size.of(series))])


def counted_lines(patch: Patch) -> int:
    """Changed lines that are neither blank nor, in C and C++, of the preprocessor."""
    return sum(
        bool(line.strip()) and not (_is_c(change.path) and re.match(r"\s*#", line))
        for change in patch.changes
        for line in (*change.added, *change.removed)
    )


def _columns(files: int, row: Counter[str]) -> str:
    return f"{files:5}  {row['added']:5}  {row['removed']:7}  {row['counted']:7}  {row['hunks']:5}"


def _busy_hunks(patch: Patch) -> int:
    return sum(len(change.hunks) for change in patch.changes if change.path == BUSY_FILE)


def _is_c(path: str) -> bool:
    return PurePosixPath(path).suffix in _C_SUFFIXES


def _lint_patch(patch: Patch, number: int) -> list[str]:
    problems: list[str] = []
    if len(patch.subject) > _SUBJECT_LIMIT:
        problems.append(f"subject has {len(patch.subject)} characters, at most {_SUBJECT_LIMIT} are allowed")
    if patch.name != patch.file_name(number):
        problems.append(f"its place and subject ask for the name {patch.file_name(number)}")
    if not patch.why:
        problems.append("no paragraph that says why it exists, between subject and trailers")
    problems += [f"no `{key}:` trailer" for key in _TRAILERS if not patch.trailers.get(key)]
    if patch.trailers.get("Guarded", "yes") not in {"yes", "no"}:
        problems.append(f"`Guarded: {patch.trailers['Guarded']}` is neither yes nor no")
    if patch.kind and patch.kind not in BUDGETS:
        problems.append(f"`Kind: {patch.kind}` is neither seam nor mend")
    for change in patch.changes:
        for line in change.added:
            if line != line.rstrip():
                problems.append(f"{change.path}: added line ends with white space: {line!r}")
            if "\t" in line:
                problems.append(f"{change.path}: added line has a tab: {line!r}")
    return problems


def _check_canonical(series: Sequence[Patch], exported: Sequence[Patch], patches: Path) -> None:
    before = {patch.name: encode(patch.render()) for patch in series}
    before[SERIES] = (patches / SERIES).read_bytes()
    after = {patch.name: encode(patch.render()) for patch in exported}
    after[SERIES] = render_series(exported, patches)
    if differing := sorted(name for name in before | after if before.get(name) != after.get(name)):
        raise BuildError(
            f"not as tools/patches export writes it: {', '.join(differing)}; run: tools/patches apply && "
            "tools/patches export"
        )


def _check_guards(series: Sequence[Patch], repository: PatchRepository) -> list[str]:
    guarded = {change.path for patch in series if patch.guarded for change in patch.changes}
    unguarded = {change.path for patch in series if not patch.guarded for change in patch.changes}
    notes: list[str] = []
    unguarded_lines: list[str] = []
    for path in sorted(guarded):
        if path in unguarded or not _is_c(path):
            reason = "an unguarded patch changes it too" if path in unguarded else "not C or C++"
            notes.append(f"{path}: guards not checked, {reason}")
            continue
        reduced = without_macro(repository.file(path), MACRO, path).split("\n")
        upstream = repository.file(path, pristine=True).split("\n")
        if reduced != upstream:
            pairs = zip(reduced, upstream, strict=False)
            equal = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            unguarded_lines.append(f"{path}:{equal + 1}")
    if unguarded_lines:
        raise BuildError(
            f"without {MACRO} not as upstream, first at upstream's line: {', '.join(unguarded_lines)}; put "
            f"every added line, empty ones too, under #ifdef {MACRO}, or set `Guarded: no` in the patch"
        )
    return notes
