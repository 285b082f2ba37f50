"""How long a thread that enters Python waits for the interpreter lock."""

import time
from bisect import bisect_left
from itertools import accumulate

from atlas_plugin.metrics.families import Family, Sample

_BOUNDS = (1e-5, 1e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1, 1.0)


class GilWait:
    """A histogram of the waits of one thread, which measures now and then; any thread may read it."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._sum = 0.0

    def measure(self) -> None:
        """Let go of the lock, and count how long it takes to get it back: as long as a request would wait."""
        begun = time.perf_counter()
        time.sleep(0)
        wait_s = time.perf_counter() - begun
        self._counts[bisect_left(_BOUNDS, wait_s)] += 1
        self._sum += wait_s

    def family(self) -> Family:
        """The histogram."""
        counts = list(accumulate(self._counts))
        buckets = list(zip((*_BOUNDS, None), counts, strict=True))
        return Family(
            "atlas_python_gil_wait_seconds",
            "histogram",
            "Waits of a thread of ATLAS for the interpreter lock, measured once a sample.",
            [Sample(sum=self._sum, count=counts[-1], buckets=buckets)],
        )
