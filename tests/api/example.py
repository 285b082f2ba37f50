"""Starts the HTTP example, which has ATLAS inside, and talks to it as to llama-server."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.server.harness import BINARY, MODEL, Server, http_client

EXAMPLE = BINARY.with_name("atlas-example-http")


class Example(Server):
    """The program, on a port that it chooses by itself, with its memory below `directory`.

    `options` are of llama-server's command line.
    """

    def __init__(self, directory: Path, options: Sequence[str] = ("-np", "2", "-c", "4096")) -> None:
        super().__init__(directory=directory, binary=EXAMPLE)
        self.command = [str(word) for word in (EXAMPLE, MODEL, 0, directory / "memory", *options)]

    def start(self) -> Self:
        """Start the process and wait until it says where it listens. Raises ServerExitedError."""
        self.spawn()
        self.wait_until(lambda: "listening on" in self.log)
        match = re.search(r"listening on (http://127\.0\.0\.1:(\d+))\n", self.log)
        assert match
        self.client.close()
        self.url, self.port = match[1], int(match[2])
        self.client = http_client(self.url, {})
        return self
