"""Starts what `deploy/fleet/compose.yml` starts, as processes of this machine.

There is no Docker where this runs. Servers get the environment that the compose file and the image give them,
the store and the router their files from `deploy/fleet/`. Changed are only names that compose makes:
hosts become addresses of the loopback interface, and paths in containers paths in a directory.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import valkey
import yaml

from tests.server.harness import BINARY, REPOSITORY, Server, free_port, http_client
from tests.stores import Store, redis_server

FLEET = REPOSITORY / "deploy/fleet"
SERVERS = "server-a", "server-b"
SECRETS = "/run/secrets"
# What a request waits for the store is tested elsewhere, and this machine may be busy.
SHARED_TIMEOUT_MS = "60000"


def compose(path: Path) -> Any:
    """A compose file, with the defaults of its variables."""
    text = path.read_text(encoding="utf-8")
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


def image_environment() -> dict[str, str]:
    """What the Dockerfile's last stage sets."""
    last = (REPOSITORY / "deploy/Dockerfile").read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    block = re.search(r"^ENV (.*(?:\\\n.*)*)", last, re.M)
    assert block
    return dict(re.findall(r"(\w+)=(\S+)", block[1]))


def replaced(text: str, names: Mapping[str, str]) -> str:
    """The text with each name replaced; all have to be there."""
    for name, by in names.items():
        assert name in text, name
        text = text.replace(name, by)
    return text


def haproxy(*arguments: str | Path) -> list[str]:
    """A command line of Debian's HAProxy."""
    path = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
    assert path, "haproxy is missing; install it: apt-get install --no-install-recommends haproxy"
    return [path, *map(str, arguments)]


class Router(Store):
    """HAProxy with that configuration; it serves once it has a server."""

    def __init__(self, config: Path, port: int) -> None:
        super().__init__(haproxy("-f", config), config.parent, port)

    def serves(self) -> bool:
        """Whether there is a server behind it."""
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=30).status_code == 200
        return False


class SharedStore(Store):
    """The store of valkey.conf; `program` is a Redis or Valkey."""

    def __init__(self, directory: Path, secrets: Path, program: Path | None = None) -> None:
        port = free_port()
        config = directory / "valkey.conf"
        names = {SECRETS: str(secrets), "port 6379": f"port {port}", "bind * -::*": "bind 127.0.0.1"}
        text = (FLEET / "valkey.conf").read_text(encoding="utf-8")
        config.write_text(replaced(text, names), encoding="utf-8")
        super().__init__([str(program or redis_server()), str(config)], directory, port)

    def serves(self) -> bool:
        """Whether it answers; that nobody without a password is let in is an answer."""
        return "Ready to accept connections" in self.log


class Fleet:
    """All of it; as a context manager, started and killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.secrets = directory / "secrets"
        subprocess.run([FLEET / "make-secrets", self.secrets], check=True, timeout=60)
        with (self.secrets / "store-users.acl").open("a", encoding="ascii") as users:
            users.write("user test on nopass ~* +@all\n")  # servers may not list what there is
        self.store = SharedStore(directory, self.secrets)
        config = self.secrets / "atlas.toml"
        names = {"store:6379": f"127.0.0.1:{self.store.port}"}
        config.write_text(replaced(config.read_text(encoding="utf-8"), names), encoding="utf-8")
        self.key = (self.secrets / "client-key").read_text(encoding="ascii").strip()
        services = compose(FLEET / "compose.yml")["services"]
        self.servers = [self._server(name, services[name]["environment"]) for name in SERVERS]
        self.router = self._router()
        self.client = http_client(
            f"http://127.0.0.1:{self.router.port}", {"Authorization": f"Bearer {self.key}"}
        )

    def _server(self, name: str, environment: dict[str, str]) -> Server:
        memory = self.directory / name
        given: dict[str, str] = image_environment() | environment
        given["ATLAS_SHARED_TIMEOUT_MS"] = SHARED_TIMEOUT_MS
        places = {
            SECRETS: str(self.secrets),
            "/models": str(REPOSITORY / "models"),
            "/var/lib/atlas": str(memory),
        }
        for place, path in places.items():
            given = {variable: value.replace(place, path) for variable, value in given.items()}
        own = {variable: value for variable, value in given.items() if variable not in _OF_THE_HARNESS}
        server = Server(["-t", "1"], own, directory=self.directory, binary=BINARY)
        server.client.headers["Authorization"] = f"Bearer {self.key}"
        return server

    def _router(self) -> Router:
        port = free_port()
        names = {"bind :8080": f"bind 127.0.0.1:{port}"}
        for name, server in zip(SERVERS, self.servers, strict=True):
            names[f"{name}:8080"] = f"127.0.0.1:{server.port}"
        config = self.directory / "haproxy.cfg"
        text = (FLEET / "haproxy.cfg").read_text(encoding="utf-8")
        config.write_text(replaced(text, names), encoding="utf-8")
        return Router(config, port)

    def store_keys(self) -> list[bytes]:
        """All keys in the store."""
        return list(self._store_client().scan_iter())

    def store_value(self, key: bytes) -> bytes:
        """What lies there."""
        value: bytes = self._store_client().get(key)
        return value

    def _store_client(self) -> Any:
        return valkey.Valkey("127.0.0.1", self.store.port, username="test", password="")

    def started(self) -> Sequence[Server]:
        """The servers that run."""
        return [server for server in self.servers if server.process and server.process.poll() is None]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.client.close)
            stack.enter_context(self.store)
            for server in self.servers:
                stack.enter_context(server)
            stack.enter_context(self.router)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


# Given by the harness on the command line, as each test needs addresses of its own.
_OF_THE_HARNESS = {"LLAMA_ARG_HOST", "LLAMA_ARG_PORT", "LLAMA_ARG_MODEL"}
