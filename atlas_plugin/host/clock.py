"""The machine's clock against time that really went by. Any thread."""

import time

# Counts the time that a machine sleeps, where the system has such a clock.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def wall_ahead() -> float:
    """Seconds by which the clock is ahead of one that nobody sets: only differences mean something."""
    return time.time() - time.clock_gettime(_STEADY)
