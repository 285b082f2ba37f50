"""The keys that tokens are signed with: from a file, or from the issuer, asked beside the requests."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.exceptions import PyJWKError, PyJWTError

from atlas_plugin.host.worker import Worker
from atlas_plugin.plugins._outgoing import Outgoing
from atlas_plugin.plugins.bearer.config import Config

log = logging.getLogger("atlas")

_TIMEOUT_S = 10.0
_MAX_BYTES = 1 << 20
_MIN_RSA_BITS = 2048
_MIN_SECRET_BYTES = 32
_OF_CURVE = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_OF_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_OF_SECRET = frozenset({"HS256", "HS384", "HS512"})


@dataclass(frozen=True)
class Key:
    """A key, and what it may verify. `id` is empty where tokens need not name it."""

    id: str
    algorithms: frozenset[str]
    key: Any


class Keys:
    """Some keys. Immutable; any thread."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)

    def find(self, key_id: str | None, algorithm: str) -> Key | None:
        """The one of that id that is for that algorithm; without an id, the only one for it."""
        fitting = [key for key in self._keys if algorithm in key.algorithms]
        if key_id is not None:
            return next((key for key in fitting if key.id in (key_id, "")), None)
        return fitting[0] if len(fitting) == 1 else None

    def __len__(self) -> int:
        return len(self._keys)


class KeySource:
    """Fetches keys on a thread of its own, now and then and where somebody wants them. Any thread.

    Those that were fetched last hold while the issuer cannot be asked.
    """

    def __init__(self, fetch: Callable[[], Keys], refresh_s: float, retry_s: float) -> None:
        self.keys: Keys | None = None
        """None before the first were fetched."""
        self.problem: str | None = None
        """Why the last fetch failed."""
        self.fetches = 0
        self._fetch = fetch
        self._refresh_s = refresh_s
        self._retry_s = retry_s
        self._began: float | None = None
        self._worker = Worker("atlas-bearer-keys", self._work)

    def start(self) -> None:
        """Begin to fetch; once."""
        self._worker.start()

    def stop(self) -> None:
        """Fetch no more."""
        self._worker.stop()

    def want(self) -> None:
        """Have them fetched soon, though not within `retry_s` of the fetch before."""
        self._worker.wake()

    def fetch(self) -> None:
        """Fetch them now; for the worker, and before it was started. Raises OSError and ValueError."""
        self._began = time.monotonic()
        self.fetches += 1
        self.keys = self._fetch()

    def _work(self) -> float:
        if self._began is not None and (left := self._began + self._retry_s - time.monotonic()) > 0:
            # Woken too early.
            return left
        try:
            self.fetch()
        except (OSError, ValueError) as error:
            if self.problem is None:
                log.warning("the keys of the issuer cannot be fetched, later tries go on: %s", error)
            self.problem = str(error)
            return self._retry_s
        if self.problem is not None:
            log.info("the keys of the issuer were fetched again")
        self.problem = None
        return self._refresh_s


def source_of(config: Config) -> KeySource:
    """Where the configuration has keys; of files they are read now. Raises OSError and ValueError."""
    if config.secret_file:
        return _given(_secret(Path(config.secret_file)))
    if config.public_key_file:
        return _given(_public(Path(config.public_key_file)))
    if config.jwks_file:
        file = Path(config.jwks_file)
        source = KeySource(lambda: parse_jwks(_object(file.read_bytes())), config.refresh_s, config.retry_s)
        source.fetch()
        return source
    return KeySource(lambda: _of_issuer(config), config.refresh_s, config.retry_s)


def parse_jwks(document: Mapping[str, Any]) -> Keys:
    """The public keys of a JSON Web Key Set; what is none is passed over. Raises ValueError where none is."""
    rows = document.get("keys")
    keys = [key for row in rows if (key := _key(row))] if isinstance(rows, list) else []
    if not keys:
        raise ValueError("the key set has no public key that can be used")
    return Keys(keys)


def _key(row: Any) -> Key | None:
    # A symmetric key has no place where everybody reads it.
    if not isinstance(row, dict) or row.get("kty") == "oct" or row.get("use", "sig") != "sig":
        return None
    try:
        key = PyJWK(row).key
    except (PyJWTError, PyJWKError, ValueError, TypeError):
        return None
    algorithms = _algorithms(key)
    if named := row.get("alg"):
        algorithms &= {named}
    name = row.get("kid")
    return Key(name if isinstance(name, str) else "", algorithms, key) if algorithms else None


def _algorithms(key: Any) -> frozenset[str]:
    if isinstance(key, rsa.RSAPublicKey):
        return _OF_RSA if key.key_size >= _MIN_RSA_BITS else frozenset()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return frozenset({_OF_CURVE[key.curve.name]}) if key.curve.name in _OF_CURVE else frozenset()
    return frozenset({"EdDSA"}) if isinstance(key, ed25519.Ed25519PublicKey) else frozenset()


def _given(key: Key) -> KeySource:
    source = KeySource(lambda: Keys([key]), refresh_s=86_400, retry_s=3_600)
    source.fetch()
    return source


def _secret(path: Path) -> Key:
    secret = path.read_bytes().strip()
    if len(secret) < _MIN_SECRET_BYTES:
        raise ValueError(f"{path} holds fewer than {_MIN_SECRET_BYTES} bytes")
    if secret.startswith(b"-----BEGIN"):
        raise ValueError(f"{path} holds a key in PEM; a public one is for public_key_file")
    return Key("", _OF_SECRET, secret)


def _public(path: Path) -> Key:
    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError:
        raise ValueError(f"{path} holds no public key in PEM") from None
    algorithms = _algorithms(key)
    if not algorithms:
        raise ValueError(f"the key in {path} is of a kind that no algorithm is for")
    return Key("", algorithms, key)


def _of_issuer(config: Config) -> Keys:
    url = config.jwks_url
    if not url:
        found = _get(config.issuer.rstrip("/") + "/.well-known/openid-configuration", config)
        if found.get("issuer") != config.issuer:
            raise ValueError(f"the OpenID configuration of {config.issuer} names another issuer")
        url = str(found.get("jwks_uri", ""))
    return parse_jwks(_get(url, config))


def _get(url: str, config: Config) -> dict[str, Any]:
    request = Outgoing(
        "GET",
        url,
        headers={"Accept": "application/json"},
        timeout_s=_TIMEOUT_S,
        max_bytes=_MAX_BYTES,
        insecure=config.insecure_http,
    )
    answer = request.send()
    if answer.status != 200:
        raise OSError(f"{url} answered {answer.status}")
    return _object(answer.body)


def _object(text: bytes) -> dict[str, Any]:
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("what was read is no JSON object")
    return document
