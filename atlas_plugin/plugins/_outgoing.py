"""Requests that plugins send to others: TLS is verified, nothing is redirected, all has a deadline."""

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from atlas_plugin.http import Headers

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Answer:
    """What came back; `body` is cut off at the limit that was given."""

    status: int
    headers: Headers
    body: bytes


def check_url(url: str, *, insecure: bool) -> SplitResult:
    """The URL's parts. Raises ValueError for what is no https:// URL; http:// is for loopback, or `insecure`.

    The message does not repeat the URL, which may hold a secret.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("it is no URL that begins with https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL may hold no user or password")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("a URL is ASCII without spaces")
    # Raises for what is no number.
    _ = parts.port
    if parts.scheme == "http" and not insecure and parts.hostname not in _LOOPBACK:
        raise ValueError("it must be https://, or insecure_http must be true")
    return parts


class Outgoing:
    """One request. Raises ValueError as check_url does."""

    def __init__(
        self,
        method: str,
        url: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float,
        max_bytes: int,
        insecure: bool = False,
    ) -> None:
        self._parts = check_url(url, insecure=insecure)
        self._method = method
        self._body = body
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._connection = _connection(self._parts, timeout_s)
        self._is_over = False

    def send(self) -> Answer:
        """Send it and wait for the answer, once. Raises OSError, TimeoutError among them."""
        watch = threading.Timer(self._timeout_s, self.abort)
        watch.daemon = True
        watch.start()
        path = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        try:
            self._connection.connect()
            if self._is_over:
                # That came before there was a socket to shut down.
                raise TimeoutError
            self._connection.request(self._method, path, self._body or None, self._headers)
            response = self._connection.getresponse()
            body = response.read(self._max_bytes)
            if self._is_over:
                # What was cut off looks like an end.
                raise TimeoutError
            return Answer(response.status, Headers(response.getheaders()), body)
        except (http.client.HTTPException, OSError, ValueError) as error:
            if self._is_over or isinstance(error, TimeoutError):
                raise TimeoutError(f"no answer within {self._timeout_s:g} s") from None
            raise OSError(f"{type(error).__name__}: {error}") from error
        finally:
            watch.cancel()
            self._connection.close()

    def abort(self) -> None:
        """Have `send` raise TimeoutError soon. Any thread."""
        self._is_over = True
        # That of the plain socket, as an SSLSocket's own takes the encryption away under who reads.
        if self._connection.sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._connection.sock, socket.SHUT_RDWR)


def _connection(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    assert parts.hostname is not None
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    context = ssl.create_default_context()
    return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=context)
