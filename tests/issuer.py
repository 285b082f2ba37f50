"""An issuer of tokens with an OpenID configuration and a key set, for tests."""

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "llm"
_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def b64(data: bytes) -> str:
    """Base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Listens on a port of the loopback interface while the block runs.

    It has an RSA key "rsa" and an EC key "ec". `fetches` counts how often the key set was asked for. While
    `released` is cleared it hangs; `asked` is set by each request.
    """

    def __init__(self) -> None:
        self.private: dict[str, Any] = {"rsa": _RSA, "ec": ec.generate_private_key(ec.SECP256R1())}
        self.fetches = 0
        self.is_up = True
        self.asked = threading.Event()
        self.released = threading.Event()
        self.released.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.jwks_url = f"{self.url}/keys"

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Those of a good token; None leaves one out."""
        now = int(time.time())
        good = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 3600}
        return {name: value for name, value in {**good, **changed}.items() if value is not None}

    def token(self, kid: str = "rsa", *, header: dict[str, Any] | None = None, **changed: Any) -> str:
        """A token that is signed with one of the keys."""
        key = self.private[kid]
        algorithm = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        return jwt.encode(
            self.claims(**changed), key, algorithm=algorithm, headers={"kid": kid, **(header or {})}
        )

    def unsigned(self, **changed: Any) -> str:
        """A token with the algorithm "none"."""
        return jwt.encode(self.claims(**changed), "", algorithm="none")

    def signed_with_public_key(self) -> str:
        """HS256 with the public RSA key as the secret, which fools who goes by the header alone."""
        head = b64(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "rsa"}).encode())
        text = f"{head}.{b64(json.dumps(self.claims()).encode())}"
        return f"{text}.{b64(hmac.digest(self.pem('rsa'), text.encode(), hashlib.sha256))}"

    def pem(self, kid: str) -> bytes:
        """The public key in PEM."""
        public = self.private[kid].public_key()
        return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def jwks(self) -> dict[str, Any]:
        """The key set."""
        rows = []
        for kid, key in self.private.items():
            is_ec = isinstance(key, ec.EllipticCurvePrivateKey)
            kind: Any = ECAlgorithm if is_ec else RSAAlgorithm
            rows.append({**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"})
        return {"keys": rows}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.set()
                issuer.released.wait()
                if self.path == "/keys":
                    issuer.fetches += 1
                documents = {
                    "/keys": issuer.jwks(),
                    "/.well-known/openid-configuration": {"issuer": issuer.url, "jwks_uri": issuer.jwks_url},
                }
                body = json.dumps(documents.get(self.path, {})).encode()
                self.send_response(200 if self.path in documents and issuer.is_up else 500)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
