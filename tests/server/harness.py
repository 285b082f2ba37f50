"""Starts the real llama-server as a subprocess and talks HTTP to it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from atlas_plugin.testing.server import (
    UNHURRIED,
    ServerExitedError,
    ServerProcess,
    environment_with,
    free_port,
    stream_events,
    variables,
)

__all__ = [
    "BINARY",
    "MODEL",
    "REPOSITORY",
    "STOCK_BINARY",
    "Server",
    "ServerExitedError",
    "free_port",
    "http_client",
    "stream_events",
    "write_plugin",
]

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("ATLAS_TEST_BINARY", REPOSITORY / "build/bin/llama-server"))
STOCK_BINARY = Path(os.environ.get("ATLAS_TEST_STOCK_BINARY", REPOSITORY / "build-stock/bin/llama-server"))
ENVIRONMENT = variables(UNHURRIED)
MODEL = REPOSITORY / "models/demo-2m-f16.gguf"


def http_client(url: str, headers: dict[str, str]) -> httpx.Client:
    """A client of any number of connections, each for one request.

    llama-server, stock too, closes some after a streamed answer while the next request is on its way. A
    header says so, as httpcore, told to keep none, may close one that a second thread has just been given.
    """
    headers = {"Connection": "close"} | headers
    return httpx.Client(base_url=url, headers=headers, timeout=60.0, limits=httpx.Limits())


def write_plugin(directory: Path, source: str, name: str = "probe") -> Path:
    """A plugin file of that source; `--atlas-plugin` takes its path."""
    path = directory / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return path


class Server(ServerProcess):
    """One llama-server. As a context manager it is started and killed.

    `arguments` go to the server after the model, address and two slots; `environment` is added to the test's
    own, from which every ATLAS_… variable and VIRTUAL_ENV was taken. Without a model it is a router, whose
    `arguments` name the models.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path] = (),
        environment: Mapping[str, str] | None = None,
        *,
        directory: Path,
        binary: Path = BINARY,
        model: Path | None = MODEL,
        api_key: str | None = None,
    ) -> None:
        port = free_port()
        command = [binary, "--host", "127.0.0.1", "--port", port, "-np", "2", "-c", "4096"]
        if model is not None:
            command += ["-m", model]
        headers = {}
        if api_key is not None:
            command += ["--api-key", api_key]
            headers["Authorization"] = f"Bearer {api_key}"
        super().__init__(
            [str(word) for word in [*command, *arguments]],
            environment_with({**ENVIRONMENT, **(environment or {})}),
            port=port,
            log_path=directory / f"server-{port}.log",
        )
        self.client = http_client(self.url, headers)

    def answers(self, path: str) -> bool:
        """Whether a GET is answered with 200 now."""
        try:
            return self.client.get(path).status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET."""
        return self.client.get(path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """POST of a JSON body."""
        return self.client.post(path, json={} if body is None else body, **options)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self.client.close()
