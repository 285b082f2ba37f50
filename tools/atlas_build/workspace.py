"""Temporary directories that never pass for finished work, locked against other processes."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive_workspace(target: Path) -> Iterator[Path]:
    """Hold the lock of `target` and yield an empty directory on the same file system, gone again at the end.

    Blocks while another thread or process holds the lock. What a killed process left behind is removed first;
    a result becomes visible only by a rename out of it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that works on {target}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        workspace = target.parent / f".{target.name}.new"
        if workspace.exists():
            shutil.rmtree(workspace)
        workspace.mkdir()
        try:
            yield workspace
        finally:
            shutil.rmtree(workspace)
