"""What `bearer` can be told, its keys, and its counts by the day."""

import base64
import json
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from atlas_plugin.errors import PluginError
from atlas_plugin.plugins.bearer.config import Config
from atlas_plugin.plugins.bearer.keys import Key, Keys, KeySource, parse_jwks
from atlas_plugin.plugins.bearer.quotas import Quotas, Used
from atlas_plugin.plugins.bearer.tokens import RefusedError, Verifier
from atlas_plugin.testing import Application, FakeHost
from tests.issuer import b64

GOOD = {"issuer": "https://issuer.example", "audience": "llm"}


def start(monkeypatch: pytest.MonkeyPatch, **fields: str) -> None:
    """Starts the plugin as the server does. Raises PluginError."""
    for name, value in fields.items():
        monkeypatch.setenv(f"ATLAS_PLUGIN_BEARER_{name.upper()}", value)
    with Application(FakeHost(plugins=["bearer"])):
        pass


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"audience": ""}, "audience"),
        ({"issuer": ""}, "issuer"),
        ({"algorithms": '["none"]'}, "algorithms"),
        ({"algorithms": '["RS256", "HS256"]'}, "algorithms: HS256 need a secret_file"),
        ({"algorithms": '["RS256"]', "secret_file": "x"}, "algorithms: RS256 are not for a secret_file"),
        ({"jwks_url": "https://a/b", "jwks_file": "x"}, "only one of jwks_url and jwks_file"),
        ({"jwks_url": "http://issuer.example/keys"}, "jwks_url: it must be https://"),
        ({"jwks_url": "https://user:word@issuer.example/keys"}, "jwks_url: a URL may hold no user"),
        ({"issuer": "issuer.example"}, "issuer: it is no URL"),
        ({"leeway_s": "601"}, "leeway_s"),
        ({"scopes": '{"chat": []}'}, "scopes: 'chat' is no route"),
        ({"requests_per_day": "-1"}, "requests_per_day"),
        ({"requests_per_day": "1"}, "quota_file"),
        ({"requests_per_day": "1", "quota_file": "/dev/null/x"}, "quota_file"),
        ({"jwks_file": "/nowhere"}, "jwks_file"),
        ({"public_key_file": "/nowhere"}, "public_key_file"),
        ({"secret_file": "/nowhere"}, "secret_file"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], named: str) -> None:
    with pytest.raises(PluginError) as refused:
        start(monkeypatch, **{**GOOD, **fields})
    assert named in str(refused.value)
    assert "user:word" not in str(refused.value)


@pytest.mark.parametrize("secret", [b"short", b"-----BEGIN PUBLIC KEY-----\n" + b"A" * 64])
def test_a_secret_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(secret)
    with pytest.raises(PluginError, match="secret_file"):
        start(monkeypatch, **GOOD, secret_file=str(path))


def test_without_pyjwt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("keys", "tokens"):
        monkeypatch.delitem(sys.modules, f"atlas_plugin.plugins.bearer.{module}", raising=False)
        monkeypatch.delattr(f"atlas_plugin.plugins.bearer.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(PluginError, match=r"pip install -e '\.\[bearer\]'"):
        start(monkeypatch, **GOOD)


def jwk(key: Any, **more: Any) -> dict[str, Any]:
    kind: Any = {
        rsa.RSAPrivateKey: RSAAlgorithm,
        ec.EllipticCurvePrivateKey: ECAlgorithm,
        ed25519.Ed25519PrivateKey: OKPAlgorithm,
    }
    algorithm = next(found for base, found in kind.items() if isinstance(key, base))
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **more}


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP384R1())


def token(header: Any, claims: Any = "{}") -> str:
    parts = (part if isinstance(part, str) else json.dumps(part) for part in (header, claims))
    return ".".join([*(b64(part.encode()) for part in parts), b64(b"signature")])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "eyJ",
        token({}),
        token({"alg": None}),
        token({"alg": ["RS256"]}),
        token({"alg": "HS256"}),
        token({"alg": "RS256", "kid": 1}),
        token({"alg": "RS256", "kid": "r", "crit": ["exp"]}),
        token([]),
        token("[" * 5000),
        token('{"alg": "RS256", "kid": "r", "x": ' + "[" * 5000 + "]" * 5000 + "}"),
        token({"alg": "RS256", "kid": "r"}, "[" * 5000),
        token({"alg": "RS256", "kid": "r"}) + "=",
        "\x00" * 100,
        "ü.ü.ü",
        "x" * 8193,
    ],
)
def test_no_text_is_a_token_by_chance(text: str) -> None:
    source = KeySource(lambda: parse_jwks({"keys": [jwk(RSA, kid="r")]}), 3600, 3600)
    source.fetch()
    config = Config(issuer=GOOD["issuer"], audience=GOOD["audience"])
    with pytest.raises(RefusedError) as refused:
        Verifier(config, source).verify(text)
    assert refused.value.status == 401


def test_claims_that_are_nonsense() -> None:
    source = KeySource(lambda: parse_jwks({"keys": [jwk(RSA, kid="r")]}), 3600, 3600)
    source.fetch()
    verifier = Verifier(Config(issuer=GOOD["issuer"], audience=GOOD["audience"]), source)
    good = {"iss": GOOD["issuer"], "aud": "llm", "sub": "ada", "exp": 1 << 40}

    def signed(**changed: Any) -> str:
        return jwt.encode({**good, **changed}, RSA, algorithm="RS256", headers={"kid": "r"})

    assert verifier.verify(signed(scope="a b")).scopes == {"a", "b"}
    assert verifier.verify(signed(scope=1)).scopes == set()
    nonsense: list[dict[str, Any]] = [{"exp": "soon"}, {"exp": [1]}, {"exp": float("inf")}, {"aud": {}}]
    for changed in [*nonsense, {"nbf": "x"}, {"sub": 1}]:
        with pytest.raises(RefusedError) as refused:
            verifier.verify(signed(**changed))
        assert refused.value.status == 401, changed


def test_each_kind_of_key_is_for_its_algorithms() -> None:
    keys = parse_jwks(
        {
            "keys": [
                jwk(RSA, kid="r"),
                jwk(RSA, kid="only", alg="PS256"),
                jwk(EC, kid="e"),
                jwk(ed25519.Ed25519PrivateKey.generate(), kid="d"),
            ]
        }
    )
    assert keys.find("r", "RS256") and keys.find("r", "PS512")
    assert not keys.find("r", "HS256") and not keys.find("r", "ES256")
    assert keys.find("only", "PS256") and not keys.find("only", "RS256")
    assert keys.find("e", "ES384") and not keys.find("e", "ES256")
    assert keys.find("d", "EdDSA")
    # Without an id only where there is no choice.
    assert keys.find(None, "ES384") and not keys.find(None, "PS256") and keys.find(None, "RS512")
    assert not keys.find("other", "ES384")


def test_keys_that_may_not_be_used_are_passed_over() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    secret = {"kty": "oct", "kid": "s", "k": base64.urlsafe_b64encode(b"x" * 32).decode()}
    bad = [secret, jwk(small, kid="small"), jwk(RSA, kid="enc", use="enc"), {"kty": "new"}, "text", {}]
    assert len(parse_jwks({"keys": [*bad, jwk(EC, kid="e")]})) == 1
    documents: list[dict[str, Any]] = [{"keys": bad}, {"keys": {}}, {}]
    for document in documents:
        with pytest.raises(ValueError, match="no public key"):
            parse_jwks(document)


def test_a_source_asks_no_more_often_than_it_may() -> None:
    asked = threading.Semaphore(0)

    def fetch() -> Keys:
        asked.release()
        return Keys([Key("", frozenset(), None)])

    source = KeySource(fetch, refresh_s=3600, retry_s=0.2)
    source.start()
    try:
        assert asked.acquire(timeout=10)
        # However often they are wanted, they are fetched once, and not before their time.
        for _ in range(100):
            source.want()
        assert not asked.acquire(blocking=False)
        assert asked.acquire(timeout=10)
        assert not asked.acquire(blocking=False)
        assert source.fetches == 2
    finally:
        source.stop()


def test_keys_hold_while_the_issuer_is_away() -> None:
    def fetch() -> Keys:
        if source.fetches > 1:
            failed.set()
            raise OSError("nobody there")
        return Keys([])

    failed = threading.Event()
    source = KeySource(fetch, refresh_s=0.01, retry_s=0.01)
    source.fetch()
    keys = source.keys
    source.start()
    assert failed.wait(10)
    source.stop()
    assert source.keys is keys
    assert source.problem == "nobody there"


class Clock:
    def __init__(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


def test_a_quota_starts_anew_with_the_day(tmp_path: Path) -> None:
    clock = Clock("2026-12-31T23:59:50")
    quotas = Quotas(tmp_path / "q", clock)
    quotas.add("ada", 1, 10)
    quotas.add("ada", 1, 5)
    assert quotas.used("ada") == Used(2, 15)
    assert quotas.used("ben") == Used()
    assert quotas.starts_anew() == "2027-01-01T00:00:00Z"
    clock.now += 10
    assert quotas.used("ada") == Used()
    quotas.add("ada", 1, 1)
    assert quotas.used("ada") == Used(1, 1)
    quotas.close()


def test_quotas_are_found_again_and_shared(tmp_path: Path) -> None:
    clock = Clock("2026-12-31T12:00:00")
    first = Quotas(tmp_path / "q", clock)
    second = Quotas(tmp_path / "q", clock)
    first.add("ada", 1, 10)
    second.add("ada", 1, 10)
    assert second.used("ada") == Used(2, 20)
    first.close()
    second.close()
    third = Quotas(tmp_path / "q", clock)
    assert third.used("ada") == Used(2, 20)
    third.close()
    # What is older than a month or so is forgotten.
    clock.now += 40 * 86_400
    fourth = Quotas(tmp_path / "q", clock)
    rows = fourth._connection.execute("SELECT COUNT(*) FROM used").fetchone()
    assert rows == (0,)
    fourth.close()
