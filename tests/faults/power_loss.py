"""A disk that loses what was not synced when the power fails.

power_loss.c watches a process; this makes of what it saw the disk that there is afterwards.
"""

import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PAGE = 4096
_SOURCE = Path(__file__).with_name("power_loss.c")


def build_library(directory: Path) -> Path:
    """The library of power_loss.c, built with the system's C compiler."""
    library = directory / "power_loss.so"
    command: list[str | Path] = [
        "cc",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        "-o",
        library,
        _SOURCE,
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return library


@dataclass
class _Entry:
    """A name in a directory, and what it names: the path where that is now, None where it is nowhere."""

    inode: int
    is_directory: bool
    path: Path | None


class Disk:
    """The directory `path` of a computer whose power fails.

    A process that is started with `environment` writes to it as it likes. After `fail` there is on it what
    a process had synced; of all else any part: names, files, pages of files.
    """

    def __init__(self, path: Path, library: Path, chooser: random.Random) -> None:
        self.path = path
        self._kept = path.with_name(f"{path.name}-kept")
        self._library = library
        self._chooser = chooser
        path.mkdir()
        self._begin()

    def environment(self, at: int | None = None) -> dict[str, str]:
        """Variables for a process; with `at` the power fails at its `at`-th call that changes the disk."""
        variables = {
            "LD_PRELOAD": str(self._library),
            "POWER_LOSS_DISK": str(self.path),
            "POWER_LOSS_KEPT": str(self._kept),
        }
        return variables if at is None else {**variables, "POWER_LOSS_AT": str(at)}

    def fail(self) -> None:
        """What is on the disk when the power is back. No process uses it any more."""
        self._survival = self._chooser.choice([0.0, 0.5, 1.0])
        self._live = {path.lstat().st_ino: path for path in [self.path, *self.path.rglob("*")]}
        after = self.path.with_name(f"{self.path.name}-after")
        self._make_directory(self.path.lstat().st_ino, after)
        shutil.rmtree(self.path)
        shutil.rmtree(self._kept)
        after.rename(self.path)
        self._begin()  # what the power left is durable

    def settle(self) -> None:
        """Make all that is on it durable, as what was done without `environment` is not known to be."""
        shutil.rmtree(self._kept)
        self._begin()

    def _begin(self) -> None:
        for kind in ("content", "names", "hold"):
            (self._kept / kind).mkdir(parents=True)
        for path in [self.path, *self.path.rglob("*")]:
            inode = str(path.lstat().st_ino)
            if path.is_dir():
                names = "".join(f"{below.lstat().st_ino} {below.name}\n" for below in path.iterdir())
                (self._kept / "names" / inode).write_text(names, encoding="utf-8")
            else:
                shutil.copyfile(path, self._kept / "content" / inode)
                os.link(path, self._kept / "hold" / inode)

    def _survives(self) -> bool:
        return self._chooser.random() < self._survival

    def _synced_names(self, inode: int) -> dict[str, int]:
        kept = self._kept / "names" / str(inode)
        lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
        return {name: int(number) for number, name in (line.split(" ", 1) for line in lines)}

    def _make_directory(self, inode: int, target: Path) -> None:
        target.mkdir(mode=0o700)
        now = self._live.get(inode)
        synced = self._synced_names(inode)
        live = {path.name: path.lstat().st_ino for path in now.iterdir()} if now else {}
        for name in sorted({*synced, *live}):
            old, new = synced.get(name), live.get(name)
            chosen = new if old == new or self._survives() else old
            if chosen is not None:
                self._make(chosen, target / name)

    def _make(self, inode: int, target: Path) -> None:
        live = self._live.get(inode)
        held = self._kept / "hold" / str(inode)
        content = self._kept / "content" / str(inode)
        if (self._kept / "names" / str(inode)).exists() or (live and live.is_dir()):
            self._make_directory(inode, target)
            return
        source = held if held.exists() else live
        now = source.read_bytes() if source else b""
        synced = content.read_bytes() if content.exists() else b""
        target.write_bytes(now if now == synced else self._mix(synced, now))
        target.chmod(0o600)

    def _mix(self, synced: bytes, now: bytes) -> bytes:
        """Of each page, and of the size, what was synced or what was written since; else zeros."""
        size = len(now if self._survives() else synced)
        pages = (
            (now if self._survives() else synced)[at : at + PAGE].ljust(PAGE, b"\0")
            for at in range(0, size, PAGE)
        )
        return b"".join(pages)[:size]
