"""Starts the real llama-server as a subprocess and talks HTTP to it."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("ATLAS_TEST_BINARY", REPOSITORY / "build/bin/llama-server"))
STOCK_BINARY = Path(os.environ.get("ATLAS_TEST_STOCK_BINARY", REPOSITORY / "build-stock/bin/llama-server"))
# Where others keep the processors busy, what Python adds is late for reasons that no test is about.
ENVIRONMENT = {"ATLAS_PYTHON_PATIENCE_MS": "60000"}
MODEL = REPOSITORY / "models/demo-2m-f16.gguf"

START_TIMEOUT_S = 60.0


def http_client(url: str, headers: dict[str, str]) -> httpx.Client:
    """A client of any number of connections, each for one request.

    llama-server, stock too, closes some after a streamed answer while the next request is on its way. A
    header says so, as httpcore, told to keep none, may close one that a second thread has just been given.
    """
    headers = {"Connection": "close"} | headers
    return httpx.Client(base_url=url, headers=headers, timeout=60.0, limits=httpx.Limits())


class ServerExitedError(RuntimeError):
    """The server ended before it was ready. The message holds its log."""


def stream_events(text: str) -> list[Any]:
    """The JSON documents of an event stream, without the closing [DONE]."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(document) for document in data if document != "[DONE]"]


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_plugin(directory: Path, source: str, name: str = "probe") -> Path:
    """A plugin file of that source; `--atlas-plugin` takes its path."""
    path = directory / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return path


class Server:
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
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = directory / f"server-{self.port}.log"
        command = [binary, "--host", "127.0.0.1", "--port", self.port, "-np", "2", "-c", "4096"]
        if model is not None:
            command += ["-m", model]
        headers = {}
        if api_key is not None:
            command += ["--api-key", api_key]
            headers["Authorization"] = f"Bearer {api_key}"
        self.command = [str(word) for word in [*command, *arguments]]
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("ATLAS_") and name != "VIRTUAL_ENV"
        }
        self.environment |= {**ENVIRONMENT, **(environment or {})}
        self.client = http_client(self.url, headers)
        self._processes: list[subprocess.Popen[bytes]] = []
        """None or one; shared with copies that are called with other keys."""

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The one that was started last."""
        return self._processes[0] if self._processes else None

    @process.setter
    def process(self, process: subprocess.Popen[bytes] | None) -> None:
        self._processes[:] = [process] if process else []

    def spawn(self) -> None:
        """Start the process and return at once."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self) -> Self:
        """Start the process and wait until the model is loaded. Raises ServerExitedError."""
        self.spawn()
        # upstream answers before it installs its signal handlers
        self.wait_until(lambda: self.answers("/health") and self.catches(signal.SIGTERM))
        return self

    def answers(self, path: str) -> bool:
        """Whether a GET is answered with 200 now."""
        try:
            return self.client.get(path).status_code == 200
        except httpx.TransportError:
            return False

    def catches(self, number: signal.Signals) -> bool:
        """Whether the process has a handler for a signal now."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught >> (number - 1) & 1)

    def wait_until(self, condition: Any, timeout: float = START_TIMEOUT_S) -> None:
        """Wait until `condition()` holds. Raises TimeoutError, or ServerExitedError when the process ends."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self.process is not None and self.process.poll() is not None:
                raise ServerExitedError(f"exit status {self.process.returncode}\n{self.log}")
            if time.monotonic() > deadline:
                raise TimeoutError(self.log)
            time.sleep(0.01)

    @property
    def log(self) -> str:
        """Everything the server printed so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def logged(self, text: str) -> bool:
        """Whether the server prints `text`: its log is written by a thread of its own, a little later."""
        with suppress(TimeoutError, ServerExitedError):
            self.wait_until(lambda: text in self.log, timeout=10.0)
        return text in self.log

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the end of the process; its exit status, negative for a signal."""
        assert self.process is not None
        return self.process.wait(timeout)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """kill -9; does nothing when the process has ended."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

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
