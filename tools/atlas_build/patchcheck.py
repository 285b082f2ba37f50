"""Checks of the patch series: form (lint), truth against upstream's source (verify), size (stats)."""

import tempfile
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

from atlas_build.console import BuildError
from atlas_build.patchfile import SERIES, Patch, decode, encode, parse_patch, read_patches, read_series
from atlas_build.patchwork import PatchRepository, render_series
from atlas_build.source import Source
from atlas_build.unifdef import without_macro

BUDGET = 480
MACRO = "LLAMA_ATLAS"
_SUBJECT_LIMIT = 72
_TRAILERS = ("Forwarded", "Drop-When", "Guarded")
_C_SUFFIXES = frozenset((".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".m"))


def lint(patches: Path) -> list[str]:
    """Everything wrong with the form of the series, one line each; needs no source."""
    names = read_series(patches)
    allowed = {*names, SERIES, "README.md"}
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
    total = sum(_changed_lines(patch) for patch in series)
    if total > BUDGET:
        problems.append(f"the series changes {total} lines, the budget is {BUDGET}: move code into native/")
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
    """A table of the series: files, lines added and removed, and the total against the budget."""
    series = read_patches(patches)
    width = max([len(patch.name) for patch in series] + [len("total")])
    lines = [f"{'patch':{width}}  files  added  removed"]
    files: set[str] = set()
    all_added = all_removed = 0
    for patch in series:
        added, removed = sum(len(c.added) for c in patch.changes), sum(c.removed for c in patch.changes)
        files |= {change.path for change in patch.changes}
        all_added, all_removed = all_added + added, all_removed + removed
        lines.append(f"{patch.name:{width}}  {len(patch.changes):5}  {added:5}  {removed:7}")
    lines.append(f"{'total':{width}}  {len(files):5}  {all_added:5}  {all_removed:7}")
    return "\n".join([*lines, f"{all_added + all_removed} of {BUDGET} changed lines used"])


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
    for change in patch.changes:
        for line in change.added:
            if line != line.rstrip():
                problems.append(f"{change.path}: added line ends with white space: {line!r}")
            if "\t" in line:
                problems.append(f"{change.path}: added line has a tab: {line!r}")
    return problems


def _changed_lines(patch: Patch) -> int:
    return sum(len(change.added) + change.removed for change in patch.changes)


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
        if path in unguarded or PurePosixPath(path).suffix not in _C_SUFFIXES:
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
