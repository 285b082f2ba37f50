"""How long the server's calls into Python waited until Python ran, above all for the interpreter lock."""

import threading
from typing import Literal, get_args

from atlas_plugin.metrics.families import Family, Sample

EntryPoint = Literal["request", "call", "stream_next"]
"""The functions of `atlas-abi.h` that requests call, without their prefix."""


class CallWaits:
    """Counts calls and their waits; any thread may call all methods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[EntryPoint, int] = dict.fromkeys(get_args(EntryPoint), 0)
        self._waited_ns = self._calls.copy()

    def add(self, function: EntryPoint, waited_ns: int) -> None:
        """Count a call; clocks that disagree count as no wait."""
        with self._lock:
            self._calls[function] += 1
            self._waited_ns[function] += max(0, waited_ns)

    def families(self) -> list[Family]:
        """Both counters, by function."""
        with self._lock:
            calls, waited_ns = self._calls.copy(), self._waited_ns.copy()
        return [
            Family(
                "atlas_python_calls_total",
                "counter",
                "Calls of the server into Python.",
                [Sample({"function": name}, count) for name, count in calls.items()],
            ),
            Family(
                "atlas_python_wait_seconds_total",
                "counter",
                "Seconds that these calls waited until Python ran, for the interpreter lock above all.",
                [Sample({"function": name}, ns / 1e9) for name, ns in waited_ns.items()],
            ),
        ]
