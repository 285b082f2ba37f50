"""The real llama-server as a process, for tests."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from atlas_plugin import facts
from atlas_plugin.http import Headers

START_TIMEOUT_S = 60.0

# Where others keep the processors busy, what Python adds is late for reasons that no test is about.
UNHURRIED = {"python_patience_ms": 60_000}
_DEFAULTS = {**UNHURRIED, "hook_deadline_ms": 5_000}

_SOURCE = Path(__file__).resolve().parents[2]
_NEEDED = {
    "llama-server with ATLAS": ("ATLAS_TEST_BINARY", _SOURCE / "build/bin/llama-server", "run `make build`"),
    "model": (
        "ATLAS_TEST_MODEL",
        _SOURCE / "models/demo-2m-f16.gguf",
        "run `git checkout models/`",
    ),
}


class ServerExitedError(RuntimeError):
    """The server ended before it was ready. The message holds its log."""


class ServerMissingError(RuntimeError):
    """There is no server, or no model, to test with. The message says what to set."""


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stream_events(text: str) -> list[Any]:
    """The JSON documents of an event stream, without the closing [DONE]."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(document) for document in data if document != "[DONE]"]


def environment_with(more: Mapping[str, str]) -> dict[str, str]:
    """The process's own, without ATLAS_… variables and VIRTUAL_ENV, and `more`."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ATLAS_") and name != "VIRTUAL_ENV"
    }
    return {**own, **more}


class ServerProcess:
    """A llama-server on `port`, which appends what it prints to the file `log_path`. One thread at a time."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, port: int, log_path: Path
    ) -> None:
        self.command = list(command)
        self.environment = dict(environment)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = log_path
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
        raise NotImplementedError

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


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body parsed. Raises ValueError where it is no JSON."""
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The JSON documents of a streamed answer, without the closing [DONE]."""
        return stream_events(self.text)


class LiveServer(ServerProcess):
    """A llama-server with plugins, on a free port. It runs in the environment of the test.

    Plugins that are installed there are loaded by their entry points; `plugins` names others, as
    `--atlas-plugin` does. `settings` are ATLAS's, by name; `arguments` are llama-server's. Hooks that name no
    deadline have one of 5 seconds, so that no test fails because the machine is busy; the setting
    `hook_deadline_ms` changes that. What it prints goes to a file in `directory`. Any thread may ask.

    Raises ServerMissingError, and TypeError for settings that there are not.
    """

    def __init__(
        self,
        *,
        directory: Path,
        plugins: Sequence[str | Path] = (),
        settings: Mapping[str, Any] | None = None,
        arguments: Sequence[str | Path] = (),
        api_key: str | None = None,
    ) -> None:
        binary, model = (_needed(what) for what in _NEEDED)
        port = free_port()
        command = [binary, "-m", model, "--host", "127.0.0.1", "--port", port, "-np", "2", "-c", "4096"]
        keys = [] if api_key is None else ["--api-key", api_key]
        named = {"plugins": [str(plugin) for plugin in plugins]} if plugins else {}
        given = {**_DEFAULTS, **named, **(settings or {})}
        super().__init__(
            [str(word) for word in [*command, *keys, "--atlas-require-python", *arguments]],
            environment_with({"ATLAS_PYTHON_HOME": sys.prefix, **variables(given)}),
            port=port,
            log_path=directory / f"server-{port}.log",
        )
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}

    def start(self) -> Self:
        """Start the process and wait until it serves.

        Raises ServerExitedError, also where a plugin failed, and TimeoutError.
        """
        super().start()
        listing = self.get("/v1/atlas/plugins")
        plugins = listing.json()["data"]["plugins"] if listing.status == 200 else []
        for one in plugins:
            if one["state"] == "failed":
                self.kill()
                raise ServerExitedError(f"plugin '{one['name']}' failed: {one['error']}\n{self.log}")
        return self

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET. Raises OSError where there is no answer."""
        return self._ask("GET", path, b"", headers)

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """POST of a JSON body; a streamed answer is read to its end. Raises OSError likewise."""
        text = json.dumps({} if body is None else body).encode()
        return self._ask("POST", path, text, {"Content-Type": "application/json", **(headers or {})})

    def answers(self, path: str) -> bool:
        """Whether a GET is answered with 200 now."""
        try:
            return self.get(path).status == 200
        except OSError:
            return False

    def close(self) -> None:
        """Stop it, by force where it does not within 30 seconds; does nothing where it does not run."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop()
        except subprocess.TimeoutExpired:
            self.kill()

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {**self._headers, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, Headers(response.getheaders()), response.read())
        except http.client.HTTPException as error:
            raise ConnectionError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class StartServer(Protocol):
    """The fixture `atlas_server`: starts a server that the test's end stops."""

    def __call__(
        self,
        *,
        plugins: Sequence[str | Path] = (),
        settings: Mapping[str, Any] | None = None,
        arguments: Sequence[str | Path] = (),
        api_key: str | None = None,
    ) -> LiveServer:
        """As LiveServer, started."""


def _needed(what: str) -> Path:
    variable, usual, remedy = _NEEDED[what]
    path = Path(os.environ.get(variable) or usual)
    if not path.is_file():
        raise ServerMissingError(
            f"there is no {what} at {path}: {remedy} in ATLAS's source tree, or set {variable} to its path"
        )
    return path


def variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables that give these settings. Raises TypeError for those that there are not."""
    names = {row["name"]: row["env"] for row in facts.SETTINGS}
    if unknown := settings.keys() - names.keys():
        raise TypeError(f"no such settings: {', '.join(sorted(unknown))}")
    return {names[name]: _written(value) for name, value in settings.items()}


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
