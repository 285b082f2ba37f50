"""Staging: a patched copy of a source tree, kept up to date so that rebuilds stay incremental."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from atlas_build.console import BuildError
from atlas_build.git import git
from atlas_build.patchfile import decode, parse_patch, read_series
from atlas_build.source import Source
from atlas_build.tree import copy_tree, synchronise
from atlas_build.workspace import exclusive_workspace

STAMP = ".atlas-stage"
OWNED = ".atlas-tree"
_FORMAT = 1
_REFUSED = re.compile(r"^error: patch failed: (?P<file>.*):(?P<line>\d+)$", re.MULTILINE)


def stage(source: Source, dest: Path, patches: Path | None = None) -> bool:
    """Make `dest` the copy of `source` with the series of `patches` applied; return False if it already was.

    Only files whose content differs are touched. Until `dest` is complete it has no stamp, and a failure
    before the first file is touched leaves it as it was. Raises BuildError. Processes exclude each other.
    """
    dest, origin = dest.absolute(), source.path.resolve()
    if dest.resolve().is_relative_to(origin) or origin.is_relative_to(dest.resolve()):
        raise BuildError(f"--dest {dest} and the source {origin} lie inside each other; stage elsewhere")
    names = read_series(patches) if patches else []
    files = [patches / name for name in names] if patches else []
    fingerprint = _fingerprint(source, files)
    with exclusive_workspace(dest) as workspace:
        stamp = dest / STAMP
        if stamp.is_file() and stamp.read_text() == fingerprint:
            print(f"{dest} is up to date")
            return False
        if dest.exists() and any(dest.iterdir()) and not (dest / OWNED).is_file():
            raise BuildError(
                f"--dest {dest} holds files that staging did not write; name another or empty directory"
            )
        fresh = workspace / "tree"
        copy_tree(source.path, fresh, source.left_out)
        for file in files:
            apply_patch(file, fresh)
        (fresh / OWNED).write_text("Written by tools/stage: edits here are lost. Change patches/ instead.\n")
        stamp.unlink(missing_ok=True)
        dest.mkdir(exist_ok=True)
        touched = synchronise(fresh, dest)
        stamp.write_text(fingerprint)
    print(f"staged {dest} with {len(files)} patches: {touched} files touched")
    return True


def apply_patch(file: Path, tree: Path) -> None:
    """Apply one patch exactly (an offset is accepted, differing context is not).

    Raises BuildError that names the patch, and file, line and hunk where it stops; then `tree` is unchanged.
    """
    result = git("apply", "--verbose", "--whitespace=nowarn", str(file.absolute()), cwd=tree)
    if result.status or "Skipped patch" in result.errors:
        raise BuildError(
            f"{describe_refusal(file.name, decode(file.read_bytes()), result.errors)}\n"
            "made for other source? check the pin, or rework the patch, starting with tools/patches apply"
        )


def describe_refusal(name: str, text: str, errors: str) -> str:
    """Turn git's errors about the patch `name` with the content `text` into a message."""
    places = [_place(name, text, match["file"], int(match["line"])) for match in _REFUSED.finditer(errors)]
    where = f" at {', '.join(places)}" if places else ""
    words = [line for line in errors.splitlines() if re.match("error: (?!while searching)|Skipped", line)]
    return "\n  ".join([f"{name} does not apply{where}:", *words])


def _place(name: str, text: str, path: str, line: int) -> str:
    hunks = next((change.hunks for change in parse_patch(name, text).changes if change.path == path), ())
    number = f" (hunk {hunks.index(line) + 1} of {len(hunks)})" if line in hunks else ""
    return f"{path}:{line}{number}"


def _fingerprint(source: Source, patches: Sequence[Path]) -> str:
    series = [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in patches]
    content = json.dumps([_FORMAT, source.identity, source.left_out, series])
    return hashlib.sha256(content.encode()).hexdigest() + "\n"
