"""The machine that figures come from."""

import os
from datetime import date
from pathlib import Path


def describe_machine() -> str:
    """Date, processor and how busy it is."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{date.today()}, {names[0] if names else 'unknown CPU'}, {os.cpu_count()} cores, {load_average()}"


def load_average() -> str:
    """The load average of the last minute."""
    return f"load average {os.getloadavg()[0]:.1f}"
