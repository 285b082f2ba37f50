"""What the plugin `bearer` can be told."""

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

from atlas_plugin.plugins._outgoing import check_url

Text = Annotated[str, Meta(min_length=1, max_length=512)]
Public = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
Secret = Literal["HS256", "HS384", "HS512"]

_PATTERN = re.compile(r"(?:(?:GET|POST|DELETE|\*) )?[/*]\S*")
_SOURCES = ("jwks_url", "jwks_file", "public_key_file", "secret_file")


class Config(Struct, forbid_unknown_fields=True, frozen=True):
    """Of jwks_url, jwks_file, public_key_file, secret_file at most one; without any the issuer is asked."""

    issuer: Text
    """The claim `iss`, exactly; where no key is given, the address of the issuer's OpenID configuration."""
    audience: Text | Annotated[list[Text], Meta(min_length=1)]
    """The claim `aud` must hold this, or one of these."""
    jwks_url: str = ""
    jwks_file: str = ""
    public_key_file: str = ""
    """A public key in PEM."""
    secret_file: str = ""
    """At least 32 bytes, for HS256 and its like; white space around them does not count."""
    algorithms: list[Public | Secret] = []
    """Empty: RS256 and ES256, or with a secret HS256."""
    leeway_s: Annotated[int, Meta(ge=0, le=600)] = 30
    name_claim: Text = "sub"
    scope_claim: Text = "scope"
    admin_scope: str = ""
    scopes: dict[str, list[Text]] = {}
    """By pattern of a route, what a token must hold. With any, a route that no pattern has is refused."""
    requests_per_day: Annotated[int, Meta(ge=0)] = 0
    """0: any number."""
    tokens_per_day: Annotated[int, Meta(ge=0)] = 0
    quota_file: str = ""
    also_api_keys: bool = False
    refresh_s: Annotated[int, Meta(ge=30, le=86_400)] = 300
    """From one look at the issuer's keys to the next."""
    retry_s: Annotated[int, Meta(ge=1, le=3_600)] = 10
    """The issuer is asked for its keys no more often than this."""
    insecure_http: bool = False

    def __post_init__(self) -> None:
        given = [name for name in _SOURCES if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"only one of {' and '.join(given)} can be given")
        wrong = [name for name in self.algorithms if name.startswith("HS") != bool(self.secret_file)]
        if wrong:
            # A public key must never be taken for a shared secret.
            what = "are not for a secret_file" if self.secret_file else "need a secret_file"
            raise ValueError(f"algorithms: {', '.join(wrong)} {what}")
        url = self.jwks_url or ("" if given else self.issuer)
        if url:
            field = "jwks_url" if self.jwks_url else "issuer"
            try:
                check_url(url, insecure=self.insecure_http)
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from None
        for pattern in self.scopes:
            if not _PATTERN.fullmatch(pattern):
                raise ValueError(f"scopes: '{pattern}' is no route such as 'POST /v1/messages' or '/v1/*'")

    @property
    def source(self) -> str:
        """The field that says where keys are."""
        return next((name for name in _SOURCES if getattr(self, name)), "issuer")

    @property
    def allowed(self) -> frozenset[str]:
        """The algorithms that tokens may be signed with."""
        return frozenset(self.algorithms or (["HS256"] if self.secret_file else ["RS256", "ES256"]))

    @property
    def has_quotas(self) -> bool:
        """Whether anything is counted."""
        return bool(self.requests_per_day or self.tokens_per_day)
