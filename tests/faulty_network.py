"""What goes wrong on the way to a store: a proxy that spoils replies, a server that talks nonsense."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Fault:
    """What befalls the bytes that a server sends over one connection.

    The first `passed` are passed on. Then: `cut` closes the connection; `hold` passes on nothing more, until
    the proxy ends; `trickle_s` waits so long before each byte; `flip` changes the first byte.
    """

    passed: int = 0
    cut: bool = False
    hold: bool = False
    flip: bool = False
    trickle_s: float | None = None


class _Listener:
    """Accepts connections on `port` of the loopback interface while the block runs; a thread serves each."""

    def __init__(self) -> None:
        self.n_connections = 0
        self._ended = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def cut_all(self) -> None:
        """Close every connection there is now."""
        for one in list(self._sockets):
            _close(one)

    def _serve(self, client: socket.socket) -> None:
        raise NotImplementedError

    def _kept(self, one: socket.socket) -> socket.socket:
        self._sockets.append(one)
        return one

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.n_connections += 1
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _start(self._serve_quietly, self._kept(client))

    def _serve_quietly(self, client: socket.socket) -> None:
        with suppress(OSError):
            self._serve(client)
        _close(client)

    def __enter__(self) -> Self:
        _start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        _close(self._listening)
        self.cut_all()


class FaultyProxy(_Listener):
    """Stands before the server on `target`. `fault` is that of connections made from then on."""

    def __init__(self, target: int, fault: Fault | None = None) -> None:
        super().__init__()
        self.fault = fault
        self._target = target

    def _serve(self, client: socket.socket) -> None:
        fault = self.fault
        server = self._kept(socket.create_connection(("127.0.0.1", self._target)))
        _start(self._pass_requests, client, server)
        try:
            n_passed = 0
            while data := server.recv(_CHUNK):
                if fault is None:
                    client.sendall(data)
                    continue
                clean, rest = data[: max(0, fault.passed - n_passed)], data[max(0, fault.passed - n_passed) :]
                client.sendall(clean)
                if rest:
                    self._spoil(client, rest, fault, is_first=n_passed <= fault.passed)
                n_passed += len(data)
        finally:
            _close(server)

    def _spoil(self, client: socket.socket, data: bytes, fault: Fault, *, is_first: bool) -> None:
        if fault.cut:
            raise OSError
        if fault.hold:
            self._ended.wait()
            raise OSError
        if fault.flip and is_first:
            data = bytes([data[0] ^ 0x01]) + data[1:]
        if fault.trickle_s is None:
            client.sendall(data)
            return
        for at in range(len(data)):
            if self._ended.wait(fault.trickle_s):
                raise OSError
            client.sendall(data[at : at + 1])

    @staticmethod
    def _pass_requests(client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(_CHUNK):
                server.sendall(data)
        _close(server)


class FakeRespServer(_Listener):
    """Answers each command with what `answer` makes of its words: None hangs up, b"" says nothing.

    Commands that begin a connection are answered with OK.
    """

    GREETINGS: tuple[bytes, ...] = (b"AUTH", b"CLIENT", b"SELECT")

    def __init__(self, answer: Callable[[list[bytes]], bytes | None]) -> None:
        super().__init__()
        self.commands: list[list[bytes]] = []
        self._answer = answer

    @property
    def url(self) -> str:
        """For clients."""
        return f"valkey://{self.address}"

    def _serve(self, client: socket.socket) -> None:
        with client.makefile("rb") as received:
            while header := received.readline():
                words = []
                for _ in range(int(header[1:])):
                    words.append(received.read(int(received.readline()[1:])))
                    received.readline()
                self.commands.append(words)
                reply = b"+OK\r\n" if words[0] in self.GREETINGS else self._answer(words)
                if reply is None:
                    return
                client.sendall(reply)


def _start(function: Callable[..., None], *arguments: socket.socket) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
