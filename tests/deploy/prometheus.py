"""Starts Debian's Prometheus and asks it."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.server.harness import free_port

READY_TIMEOUT_S = 60.0


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    path = shutil.which(name)
    assert path, f"{name} is missing; install it: apt-get install --no-install-recommends prometheus"
    return path


def promtool(*arguments: str | Path) -> None:
    """Run promtool, which must succeed."""
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """One Prometheus with a configuration file, as a context manager; its data are in `directory`."""

    def __init__(self, config: Path, directory: Path) -> None:
        port = free_port()
        self.log_path = directory / "prometheus.log"
        self._command: list[str | Path] = [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=debug",
        ]
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # A proxy of the environment would be asked for the server on this machine.
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.wait_until(self._is_ready, READY_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)
        self._client.close()

    def wait_until(self, condition: Callable[[], object], timeout_s: float) -> None:
        """Wait until `condition()` holds. Raises TimeoutError or AssertionError with the log."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self._process is not None
            assert self._process.poll() is None, self._log
            if time.monotonic() > deadline:
                raise TimeoutError(self._log)
            time.sleep(0.1)

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of the HTTP API, which must be a success without warnings."""
        response = self._client.get(f"/api/v1/{path}", params=parameters)
        answer = response.json()
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return answer["data"]

    def query(self, expression: str) -> list[float]:
        """The values of an instant query's series, now."""
        return [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]

    def failed_scrapes(self) -> list[str]:
        """The lines of the log that tell of scrapes that failed, and why."""
        return [
            line for line in self._log.splitlines() if re.search(r"[Ss]crape failed|[Aa]ppend failed", line)
        ]

    @property
    def _log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def _is_ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False
