"""Source trees as sets of files: walk, digest, copy, and synchronise without touching what is equal."""

import filecmp
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path


def walk_files(root: Path, leave_out: Collection[str] = ()) -> Iterator[Path]:
    """Yield the files and symbolic links below `root`, relative to it, in a fixed order.

    Left out: `leave_out` (names directly below `root`), `.git` at any depth, and build trees (what holds a
    CMakeCache.txt), which a developer's checkout tends to hold.
    """
    for directory, subdirectories, names in os.walk(root):
        here = Path(directory)
        left_out = {".git", *leave_out} if here == root else {".git"}
        links = [name for name in subdirectories if (here / name).is_symlink()]
        subdirectories[:] = sorted(
            name
            for name in subdirectories
            if name not in left_out and name not in links and not (here / name / "CMakeCache.txt").exists()
        )
        yield from ((here / name).relative_to(root) for name in sorted(names + links) if name not in left_out)


def tree_digest(root: Path, leave_out: Collection[str] = ()) -> str:
    """SHA-256 over path, size and mtime of every file: changes with any edit that a build would see."""
    digest = hashlib.sha256()
    for relative in walk_files(root, leave_out):
        status = (root / relative).lstat()
        digest.update(os.fsencode(relative) + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def copy_tree(source: Path, dest: Path, leave_out: Collection[str] = ()) -> None:
    """Copy the files of `source`, with their modes but with the present as mtime, into `dest`."""
    for relative in walk_files(source, leave_out):
        (dest / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / relative, dest / relative, follow_symlinks=False)


def synchronise(fresh: Path, dest: Path) -> int:
    """Move into `dest` what differs in `fresh`, delete what `fresh` lacks, return how many files that were.

    Files with equal content and mode keep their mtime, so that a build system sees no change. Both lie on one
    file system. Every file is replaced atomically, the tree as a whole is not.
    """
    wanted = set(walk_files(fresh))
    vanished = set(walk_files(dest)) - wanted
    for relative in vanished:
        (dest / relative).unlink()
    for directory, _, _ in os.walk(dest, topdown=False):
        if not any(Path(directory).iterdir()) and Path(directory) != dest:
            Path(directory).rmdir()
    changed = [relative for relative in sorted(wanted) if not _same(fresh / relative, dest / relative)]
    for relative in changed:
        (dest / relative).parent.mkdir(parents=True, exist_ok=True)
        (fresh / relative).replace(dest / relative)
    return len(changed) + len(vanished)


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    return (
        other.is_file()
        and one.stat().st_mode == other.stat().st_mode
        and filecmp.cmp(one, other, shallow=False)
    )
