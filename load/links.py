"""Links of a given rate to another network namespace: veth pairs, throttled by tbf. Needs root."""

import os
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

_QUEUE = ("burst", "1mb", "latency", "50ms")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(words)}` failed: {done.stderr.strip()}")


class Links:
    """A namespace with a veth pair for each rate; as a context manager, made and removed.

    `rates` are tc's words by the name of a link; None does not throttle. Raises RuntimeError where it
    is not allowed.
    """

    def __init__(self, rates: Mapping[str, str | None]) -> None:
        self.namespace = f"atlas-bench-{os.getpid()}"
        self._rates = dict(rates)
        self.addresses = {name: f"10.213.{number}.2" for number, name in enumerate(rates)}
        """In the other namespace, by the name of a link."""

    def command(self, *words: str) -> list[str]:
        """A command line that runs there."""
        return ["ip", "netns", "exec", self.namespace, *words]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            _run("ip", "netns", "add", self.namespace)
            stack.callback(_run, "ip", "netns", "del", self.namespace)
            for number, (name, rate) in enumerate(self._rates.items()):
                here, there = f"ab{os.getpid() % 100000}h{number}", f"ab{os.getpid() % 100000}t{number}"
                _run("ip", "link", "add", here, "type", "veth", "peer", "name", there)
                # else it would go some time after the namespace
                stack.callback(_run, "ip", "link", "del", here)
                _run("ip", "link", "set", there, "netns", self.namespace)
                _run("ip", "addr", "add", f"10.213.{number}.1/24", "dev", here)
                _run("ip", "link", "set", here, "up")
                _run(*self.command("ip", "addr", "add", f"{self.addresses[name]}/24", "dev", there))
                _run(*self.command("ip", "link", "set", there, "up"))
                if rate is not None:
                    _run("tc", "qdisc", "add", "dev", here, "root", "tbf", "rate", rate, *_QUEUE)
                    _run(
                        *self.command(
                            "tc", "qdisc", "add", "dev", there, "root", "tbf", "rate", rate, *_QUEUE
                        )
                    )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
