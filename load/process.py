"""What Linux says of a running process."""

import ctypes
import os
import time
from pathlib import Path

_libc = ctypes.CDLL(None)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all threads that it has had, to the nanosecond.

    /proc/PID/stat has the same in hundredths of a second, too coarse for differences of one per cent. Raises
    ProcessLookupError.
    """
    clock = ctypes.c_int()
    if error := _libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise OSError(error, os.strerror(error), f"process {pid}")
    return time.clock_gettime(clock.value)


def resident_mib(pid: int) -> float:
    """Resident memory of a process, mapped files (the model, libpython) included."""
    return int(_status(pid, "VmRSS")) / 1024


def thread_count(pid: int) -> int:
    """Threads of a process."""
    return int(_status(pid, "Threads"))


def descriptor_count(pid: int) -> int:
    """Open file descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _status(pid: int, field: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.split()[0]
    raise RuntimeError(f"no {field} in /proc/{pid}/status")
