"""Which servers on a memory path run: each has a file there, locked as long as its process lives."""

import fcntl
import os
import re
import secrets
import threading
from contextlib import suppress
from pathlib import Path

_NAME = re.compile(r"[0-9a-f]{16}")


class RunningServers:
    """Names of servers on a directory. Any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._own = ""

    def own_name(self) -> str:
        """That of this server, whose file is made when it is first asked for. Raises OSError."""
        with self._lock:
            if not self._own:
                name = secrets.token_hex(8)
                descriptor = os.open(self._path(name), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
                # Never closed: the end of the process gives the lock back, however it ends.
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                self._own = name
            return self._own

    def runs(self, name: str) -> bool:
        """Whether the server of that name runs; the file of one that does not is removed. Raises OSError."""
        if not _NAME.fullmatch(name):
            return False
        if name == self._own:
            return True
        try:
            descriptor = os.open(self._path(name), os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            with suppress(OSError):
                self._path(name).unlink()
            return False
        finally:
            os.close(descriptor)

    def is_other(self, name: str) -> bool:
        """Whether it is another server, which runs. Raises OSError."""
        return name != self._own and self.runs(name)

    def _path(self, name: str) -> Path:
        return self._directory / f"server-{name}.lock"
