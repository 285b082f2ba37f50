"""A private file that grows by lines, and is rotated.

The standard library's RotatingFileHandler buffers text: after a write that failed nobody knows what of it is
in the file. It also opens files for others to read, never syncs, and knows of one process only.
"""

import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from atlas_plugin.storage import private_files

log = logging.getLogger("atlas")

_BLOCK = 1 << 16


class LineLog:
    """Appends whole lines to a file of mode 0600, and rotates it. One thread at a time.

    When the next line would make `path` larger than `max_bytes`, it becomes `path.1`, what was `path.1`
    becomes `path.2`, and so on; `keep` of these stay. Several processes may append to one file: they take
    turns by a lock of the file `path.lock`.

    A process that is killed in between may leave a part of a line at the end; whoever opens the file next
    cuts it off. A line that cannot be written leaves no part of it.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path, self._max_bytes, self._keep = path, max_bytes, keep
        self._file: int | None = None
        self._lock: int | None = None

    def open(self) -> None:
        """Open the file, and make it and its directory where they are missing. Raises OSError."""
        if not self._path.parent.is_dir():
            private_files.make_directory(self._path.parent)
        with self._turn():
            pass

    def append(self, lines: list[bytes]) -> None:
        """Append the lines, which end in a newline, and take out of the list those that are written.

        Raises OSError; what is left in the list then is not in the file.
        """
        with self._turn():
            while lines:
                self._append(lines[0])
                del lines[0]

    def sync(self) -> None:
        """Wait until a power cut leaves all that was appended. Raises OSError."""
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        """Close it; it can be opened again."""
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._lock = None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._lock is None:
            self._lock = _open(self._path.with_name(f"{self._path.name}.lock"))
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            if self._file is None or not self._is_in_place(self._file):
                self._reopen()
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _is_in_place(self, file: int) -> bool:
        """False where another process has rotated it, or somebody has moved it away."""
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def _reopen(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._file = _open(self._path)
        if cut := _cut_broken_line(self._file):
            log.warning("%s ended within a line; %d bytes of it are cut off", self._path, cut)

    def _append(self, line: bytes) -> None:
        assert self._file is not None
        size = os.fstat(self._file).st_size
        if size and size + len(line) > self._max_bytes:
            self._rotate()
            size = 0
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, size)
            raise

    def _rotate(self) -> None:
        assert self._file is not None
        os.fsync(self._file)
        for number in range(self._keep, 0, -1):
            source = self._numbered(number - 1) if number > 1 else self._path
            with suppress(FileNotFoundError):
                source.replace(self._numbered(number))
        self._reopen()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _open(path: Path) -> int:
    # Not blocking, so that a FIFO of that name is refused and not waited for.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no file")
        os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _cut_broken_line(file: int) -> int:
    """Cut off what is behind the last newline; how many bytes that were."""
    size = end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
    return size - end
