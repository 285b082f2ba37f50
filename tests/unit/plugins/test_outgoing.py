"""Requests that plugins send: which URLs, TLS, and a deadline for all of it."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from atlas_plugin.plugins._outgoing import Outgoing, check_url
from tests.receiver import Receiver

Talk = Callable[[socket.socket], None]


@contextmanager
def listening(talk: Talk) -> Iterator[int]:
    """A server of one connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        # Wakes an accept that nobody came to.
        with suppress(OSError):
            socket.create_connection(server.getsockname()).close()
        thread.join()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hook",
        "ftp://example.org/",
        "https://",
        "http://example.org/",
        "https://user:secret-word@example.org/",
        "https://example.org/a b",
        "https://example.org/\r\nX: y",
        "https://example.org/ü",
        "https://example.org:port/",
    ],
)
def test_a_url_that_is_refused(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_url(url, insecure=False)
    assert "secret-word" not in str(refused.value)


@pytest.mark.parametrize("url", ["https://example.org/hook?a=b", "http://127.0.0.1:80/", "http://[::1]/"])
def test_a_url_that_is_taken(url: str) -> None:
    assert check_url(url, insecure=False).hostname
    assert check_url("http://example.org/", insecure=True).hostname


def test_a_request() -> None:
    with Receiver() as receiver:
        answer = Outgoing("POST", receiver.url, b"{}", {"X-A": "b"}, timeout_s=10, max_bytes=10).send()
    assert (answer.status, answer.body) == (204, b"")
    assert (receiver.attempts[0].body, receiver.attempts[0].headers["x-a"]) == (b"{}", "b")


def drip(head: bytes) -> Talk:
    """One that never ends, and never is silent."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"x")
            over.wait(0.05)

    over = threading.Event()
    return talk


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]
)
def test_an_answer_that_drips_ends_at_the_deadline(head: bytes) -> None:
    with listening(drip(head)) as port:
        request = Outgoing("GET", f"http://127.0.0.1:{port}/", timeout_s=0.5, max_bytes=9999)
        with pytest.raises(TimeoutError, match=r"no answer within 0\.5 s"):
            request.send()


def test_an_answer_is_cut_off_where_it_is_too_long() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)

    with listening(talk) as port:
        answer = Outgoing("GET", f"http://127.0.0.1:{port}/", timeout_s=10, max_bytes=10).send()
    assert answer.body == b"x" * 10


def test_another_thread_can_end_it() -> None:
    came = threading.Event()

    def talk(connection: socket.socket) -> None:
        came.set()
        while connection.recv(1000):
            pass

    with listening(talk) as port:
        request = Outgoing("GET", f"http://127.0.0.1:{port}/", timeout_s=60, max_bytes=10)

        def end() -> None:
            came.wait(30)
            request.abort()

        ending = threading.Thread(target=end)
        ending.start()
        with pytest.raises(TimeoutError):
            request.send()
        ending.join()


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.mark.parametrize("is_trusted", [True, False])
def test_certificates_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_trusted: bool) -> None:
    file, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1000)
            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with listening(talk) as port:
        request = Outgoing("GET", f"https://127.0.0.1:{port}/", timeout_s=10, max_bytes=10)
        if is_trusted:
            assert request.send().body == b"ok"
        else:
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                request.send()
