"""Whether a token is good, and what it says. Any thread."""

from dataclasses import dataclass
from typing import Any

import jwt
from jwt import exceptions

from atlas_plugin.plugins.bearer.config import Config
from atlas_plugin.plugins.bearer.keys import Key, KeySource

MAX_BYTES = 8_192
_MAX_NAME = 256
# The first that fits counts.
_REASONS: tuple[tuple[type[Exception], str, str], ...] = (
    (exceptions.ExpiredSignatureError, "expired", "the token has expired"),
    (exceptions.ImmatureSignatureError, "not yet", "the token is not valid yet"),
    (exceptions.InvalidAudienceError, "audience", "the token is for another audience"),
    (exceptions.InvalidIssuerError, "issuer", "the token is of another issuer"),
    (exceptions.InvalidSignatureError, "signature", "the token's signature is wrong"),
    (exceptions.InvalidAlgorithmError, "algorithm", "the token is signed in a way that is not allowed"),
)


class RefusedError(Exception):
    """A token that is no good. `reason` is a word for the metrics, the message is for the client."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Bearer:
    """Whom a token stands for."""

    name: str
    scopes: frozenset[str]


def is_token(key: str) -> bool:
    """Whether it has the form of a signed token, rather than that of an API key."""
    return key.startswith("eyJ") and key.count(".") == 2


class Verifier:
    """Checks tokens by the configuration and the keys that there are."""

    def __init__(self, config: Config, source: KeySource) -> None:
        self._config = config
        self._source = source

    def verify(self, token: str) -> Bearer:
        """Whom it stands for. Never waits. Raises RefusedError."""
        if len(token) > MAX_BYTES:
            raise RefusedError(401, "malformed", f"the token is longer than {MAX_BYTES} bytes")
        key, algorithm = self._key(token)
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=self._config.audience,
                issuer=self._config.issuer,
                leeway=self._config.leeway_s,
                options={"require": ["exp", "iss", "aud", self._config.name_claim]},
            )
        except Exception as error:  # also what PyJWT does not foresee, such as a date of 1e999
            raise _refusal(error) from None
        return Bearer(self._name(claims), _scopes(claims.get(self._config.scope_claim)))

    def _key(self, token: str) -> tuple[Key, str]:
        try:
            header = jwt.get_unverified_header(token)
        except Exception as error:  # likewise: JSON that is nested too deep
            raise _refusal(error) from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._config.allowed:
            raise _refusal(exceptions.InvalidAlgorithmError())
        keys = self._source.keys
        if keys is None:
            raise RefusedError(503, "no keys", "the issuer's keys are not known yet; try again soon")
        key = keys.find(header.get("kid"), algorithm)
        if key is None:
            self._source.want()
            raise RefusedError(
                401,
                "unknown key",
                "the token's key is not known; if it is a new one, try again soon",
            )
        return key, algorithm

    def _name(self, claims: dict[str, Any]) -> str:
        name = claims[self._config.name_claim]
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
            raise RefusedError(401, "claims", f"the token's claim {self._config.name_claim} is no name")
        return name


def _refusal(error: Exception) -> RefusedError:
    if isinstance(error, exceptions.MissingRequiredClaimError):
        return RefusedError(401, "claims", f"the token lacks the claim {error.claim}")
    for kind, reason, message in _REASONS:
        if isinstance(error, kind):
            return RefusedError(401, reason, message)
    return RefusedError(401, "malformed", "this is no token that can be read")


def _scopes(value: Any) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset(value.split())
    return frozenset(one for one in value if isinstance(one, str)) if isinstance(value, list) else frozenset()
