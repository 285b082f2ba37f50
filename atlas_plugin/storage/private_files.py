"""Files and directories that only the owner of the server can read."""

import logging
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("atlas")

_ABANDONED_S = 3600.0


def make_directory(directory: Path) -> None:
    """Make the directory, with mode 0700, where it is missing; warn when it is there and open to others.

    A power cut leaves what was made. Raises OSError.
    """
    if not directory.is_dir():
        missing = [path for path in (directory, *directory.parents) if not path.is_dir()]
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for made in missing:
            _sync_names(made.parent)
    elif directory.stat().st_mode & 0o077:
        log.warning("%s is open to other users of this machine; chmod 700 keeps them out", directory)


def _sync_names(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes) -> None:
    """Write the file, mode 0600, so that a crash leaves the old one or the new one. Raises OSError."""
    # The name is a free one, as other servers may share the directory.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def remove_abandoned(directory: Path) -> None:
    """Remove what `replace` left when a process was killed in it, an hour ago or longer."""
    for path in directory.glob("*.tmp"):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _ABANDONED_S:
                path.unlink()
