"""The ready-made plugin `bearer`, with an issuer of its own, in the real server."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from atlas_plugin.testing import LiveServer, StartServer
from atlas_plugin.testing.server import Answer
from tests.issuer import AUDIENCE, Issuer
from tests.server.conftest import StartServer as StartRouter
from tests.server.harness import MODEL

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
USAGE = "/v1/atlas/x/bearer/usage"


def options(directory: Path, issuer: Issuer, **fields: Any) -> dict[str, Any]:
    """What starts a server with the plugin."""
    rows = [f"issuer = '{issuer.url}'", f"audience = '{AUDIENCE}'"]
    rows += [
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
        for name, value in fields.items()
        if name != "scopes"
    ]
    rows += ["[plugins.bearer.scopes]"] + [f"{k!r} = {v!r}" for k, v in fields.get("scopes", {}).items()]
    path = directory / "atlas.toml"
    path.write_text("\n".join(["[plugins.bearer]", *rows]), encoding="utf-8")
    return {"plugins": ["bearer"], "arguments": ["--atlas-config", path]}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def chat(server: LiveServer, token: str | None) -> Answer:
    return server.post(CHAT, BODY, {} if token is None else bearer(token))


def message(answer: Answer) -> str:
    return str(answer.json()["error"]["message"])


def started(server: LiveServer, token: str) -> LiveServer:
    """The server, once it has the keys."""
    server.wait_until(lambda: server.get("/v1/models", bearer(token)).status == 200)
    return server


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def server(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """It learns of the keys by discovery."""
    directory = tmp_path_factory.mktemp("server")
    scopes = {
        "*": [],
        "/v1/atlas/config": ["ops"],
        "POST /v1/atlas/memory/*": ["memory", "write"],
    }
    given = options(directory, issuer, admin_scope="admin", scopes=scopes, retry_s=3600)
    with LiveServer(directory=directory, **given) as server:
        yield started(server, issuer.token())


@pytest.mark.parametrize("kid", ["rsa", "ec"])
def test_a_good_token_gets_in(server: LiveServer, issuer: Issuer, kid: str) -> None:
    assert chat(server, issuer.token(kid)).status == 200
    assert server.post(CHAT, BODY, {"X-Api-Key": issuer.token(kid)}).status == 200


def other_key(issuer: Issuer) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(issuer.claims(), key, algorithm="RS256", headers={"kid": "rsa"})


BAD = {
    "the token has expired": lambda issuer: issuer.token(exp=int(time.time()) - 31),
    "the token is not valid yet": lambda issuer: issuer.token(nbf=int(time.time()) + 60),
    "the token is for another audience": lambda issuer: issuer.token(aud="mail"),
    "the token is of another issuer": lambda issuer: issuer.token(iss="https://elsewhere.example"),
    "the token's signature is wrong": other_key,
    "the token is signed in a way that is not allowed": lambda issuer: issuer.unsigned(),
    "the token lacks the claim exp": lambda issuer: issuer.token(exp=None),
    "the token lacks the claim aud": lambda issuer: issuer.token(aud=None),
    "the token lacks the claim sub": lambda issuer: issuer.token(sub=None),
    "the token's claim sub is no name": lambda issuer: issuer.token(sub=""),
    "this is no token that can be read": lambda issuer: "eyJ.no.token",
    "send a token: Authorization: Bearer …": lambda issuer: None,
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_token_does_not(server: LiveServer, issuer: Issuer, why: str) -> None:
    token = BAD[why](issuer)  # type: ignore[no-untyped-call]
    answer = chat(server, token)
    assert (answer.status, message(answer)) == (401, why)
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    headers = {} if token is None else bearer(token)
    assert server.get("/v1/models", headers).status == 401
    assert server.get("/v1/atlas/status", headers).status == 401


def test_a_public_key_is_no_secret(server: LiveServer, issuer: Issuer) -> None:
    answer = chat(server, issuer.signed_with_public_key())
    assert (answer.status, message(answer)) == (401, "the token is signed in a way that is not allowed")


def test_leeway(server: LiveServer, issuer: Issuer) -> None:
    assert chat(server, issuer.token(exp=int(time.time()) - 5)).status == 200


def test_an_oversized_token_is_refused(server: LiveServer, issuer: Issuer) -> None:
    # Longer lines the HTTP server refuses before any plugin.
    for size in (6_500, 60_000):
        assert 400 <= chat(server, issuer.token(padding="x" * size)).status < 500, size
    assert chat(server, issuer.token()).status == 200


def test_of_two_headers_the_first_counts(server: LiveServer, issuer: Issuer) -> None:
    """For both hooks, and however they are written."""
    headers = {**bearer(issuer.token()), "authorization": "Bearer something-else"}
    assert server.post(CHAT, BODY, headers).status == 200
    for tokens, status in (((issuer.token(), "another"), 200), (("another", issuer.token()), 401)):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.putrequest("GET", "/v1/models")
        for token in tokens:
            connection.putheader("Authorization", f"Bearer {token}")
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()


def test_scopes_are_for_routes(server: LiveServer, issuer: Issuer) -> None:
    plain = bearer(issuer.token())
    answer = server.get("/v1/atlas/config", plain)
    assert (answer.status, message(answer)) == (403, "the token lacks the scope ops")
    save = "/v1/atlas/memory/list"
    assert message(server.post(save, {}, plain)) == "the token lacks the scope memory write"
    assert server.post(save, {}, bearer(issuer.token(scope="memory"))).status == 403
    assert server.post(save, {}, bearer(issuer.token(scope="memory write"))).status != 403
    assert server.post(save, {}, bearer(issuer.token(scope=["memory", "write"]))).status != 403


def test_an_admin_is_known_by_a_scope(server: LiveServer, issuer: Issuer) -> None:
    assert server.get("/v1/atlas/plugins", bearer(issuer.token())).status == 403
    assert server.get("/v1/atlas/config", bearer(issuer.token(scope="ops"))).status == 403
    listing = server.get("/v1/atlas/plugins", bearer(issuer.token(scope="admin")))
    assert listing.status == 200
    found = {row["name"]: row for row in listing.json()["data"]["plugins"]}
    assert found["bearer"]["source"] == "module"


def test_unknown_keys_make_nobody_ask_the_issuer(server: LiveServer, issuer: Issuer) -> None:
    before = issuer.fetches
    for number in range(20):
        answer = chat(server, issuer.token(header={"kid": f"unknown-{number}"}))
        assert answer.status == 401
        assert "the token's key is not known" in message(answer)
    status = server.get("/v1/atlas/status", bearer(issuer.token(scope="admin"))).json()["data"]
    assert status["bearer"] == {"keys": 2, "key_fetches": 1}
    assert issuer.fetches == before


def test_what_came_of_tokens_is_counted(server: LiveServer, issuer: Issuer) -> None:
    chat(server, issuer.token(aud="mail"))
    text = server.get("/v1/atlas/metrics/prometheus", bearer(issuer.token())).text
    assert 'atlas_bearer_tokens_total{result="audience"}' in text
    assert 'atlas_bearer_tokens_total{result="accepted"}' in text


def test_a_key_rotation_is_noticed(atlas_server: StartServer, tmp_path: Path) -> None:
    with Issuer() as issuer:
        given = options(tmp_path, issuer, jwks_url=issuer.jwks_url, retry_s=1)
        server = started(atlas_server(**given), issuer.token())
        issuer.private["rsa-2"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        old = issuer.token()
        del issuer.private["rsa"]
        issuer.released.clear()
        issuer.asked.clear()
        # The issuer hangs: nobody waits for it, and the keys that are known go on to work.
        assert "try again" in message(chat(server, issuer.token("rsa-2")))
        assert issuer.asked.wait(30)
        assert chat(server, issuer.token("rsa-2")).status == 401
        assert chat(server, issuer.token("ec")).status == 200
        issuer.released.set()
        server.wait_until(lambda: chat(server, issuer.token("rsa-2")).status == 200)
        assert chat(server, old).status == 401


def test_an_issuer_that_is_down_at_the_start(atlas_server: StartServer, tmp_path: Path) -> None:
    with Issuer() as issuer:
        issuer.is_up = False
        server = atlas_server(**options(tmp_path, issuer, retry_s=1))
        answer = chat(server, issuer.token())
        assert (answer.status, message(answer)[:38]) == (503, "the issuer's keys are not known yet; t")
        assert server.logged("the keys of the issuer cannot be fetched")
        issuer.is_up = True
        server.wait_until(lambda: chat(server, issuer.token()).status == 200)


def test_quotas_outlive_the_server(atlas_server: StartServer, issuer: Issuer, tmp_path: Path) -> None:
    file = tmp_path / "quota.sqlite3"
    given = options(tmp_path, issuer, requests_per_day=2, tokens_per_day=10_000, quota_file=str(file))
    ada, ben = issuer.token(), issuer.token(sub="ben")
    server = started(atlas_server(**given), ada)

    def used() -> dict[str, Any]:
        found: dict[str, Any] = server.get(USAGE, bearer(ada)).json()
        return found

    for number in (1, 2):
        assert chat(server, ada).status == 200
        server.wait_until(lambda number=number: used()["requests"] == number)
    assert used()["tokens"] > 4
    refused = chat(server, ada)
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 24 * 60 * 60
    assert message(refused) == (
        f"the quota of 2 requests a day is used up; it starts anew at {used()['starts_anew']}"
    )
    assert file.stat().st_mode & 0o777 == 0o600
    server.kill()
    started(server.start(), ada)
    assert chat(server, ada).status == 429
    assert used()["requests"] == 2
    assert chat(server, ben).status == 200


def test_who_leaves_before_the_end_has_used_it(
    atlas_server: StartServer, issuer: Issuer, tmp_path: Path
) -> None:
    given = options(tmp_path, issuer, requests_per_day=1, quota_file=str(tmp_path / "quota.sqlite3"))
    given["arguments"] += ["--context-shift"]
    server = started(atlas_server(**given), issuer.token())
    body = {**BODY, "max_tokens": -1, "ignore_eos": True, "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", CHAT, json.dumps(body), bearer(issuer.token()))
    assert connection.getresponse().readline().startswith(b"data: ")
    assert server.get(USAGE, bearer(issuer.token())).json()["requests"] == 0
    connection.close()
    server.wait_until(lambda: server.get(USAGE, bearer(issuer.token())).json()["requests"] == 1)
    assert chat(server, issuer.token()).status == 429
    # What was refused uses nothing.
    assert server.get(USAGE, bearer(issuer.token())).json()["requests"] == 1


def test_a_quota_of_tokens(atlas_server: StartServer, issuer: Issuer, tmp_path: Path) -> None:
    # Without a quota_file it is under the memory path.
    given = options(tmp_path, issuer, tokens_per_day=1)
    server = started(
        atlas_server(**given, settings={"memory_save_path": str(tmp_path / "memory")}), issuer.token()
    )
    streamed = server.post(CHAT, {**BODY, "stream": True}, bearer(issuer.token()))
    assert streamed.status == 200
    server.wait_until(lambda: chat(server, issuer.token()).status == 429)
    assert message(chat(server, issuer.token())).startswith("the quota of 1 tokens a day is used up")
    assert (tmp_path / "memory/plugins/bearer.sqlite3").exists()


@pytest.mark.parametrize("also", [True, False])
def test_api_keys(atlas_server: StartServer, issuer: Issuer, tmp_path: Path, also: bool) -> None:
    given = options(tmp_path, issuer, also_api_keys=also, requests_per_day=1, quota_file=str(tmp_path / "q"))
    server = atlas_server(**given, api_key="static-key")
    started(server, issuer.token())
    assert server.post(CHAT, BODY).status == (200 if also else 401)
    # Quotas are for tokens.
    assert server.post(CHAT, BODY).status == (200 if also else 401)
    assert chat(server, "another-key").status == 401
    assert chat(server, issuer.token()).status == 200
    assert server.get(USAGE).status == (404 if also else 401)


def test_files_of_keys(atlas_server: StartServer, issuer: Issuer, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(issuer.pem("rsa"))
    server = atlas_server(**options(tmp_path, issuer, public_key_file=str(tmp_path / "key.pem")))
    assert chat(server, issuer.token()).status == 200
    assert chat(server, issuer.token("ec")).status == 401
    assert chat(server, issuer.signed_with_public_key()).status == 401
    server.stop()
    secret = "a secret of at least thirty-two bytes"
    (tmp_path / "secret").write_text(f"{secret}\n")
    server = atlas_server(**options(tmp_path, issuer, secret_file=str(tmp_path / "secret")))
    assert chat(server, jwt.encode(issuer.claims(), secret, algorithm="HS256")).status == 200
    assert chat(server, jwt.encode(issuer.claims(), f"{secret}!", algorithm="HS256")).status == 401
    assert chat(server, issuer.token()).status == 401
    assert secret not in server.log


def test_prompts_go_by_the_name(atlas_server: StartServer, issuer: Issuer, tmp_path: Path) -> None:
    given = options(tmp_path, issuer)
    config = tmp_path / "atlas.toml"
    rule = "\n[[plugins.prompts.rules]]\nnames = ['ada']\ntext = 'A long text, of a word after a word.'\n"
    config.write_text(config.read_text(encoding="utf-8") + rule, encoding="utf-8")
    server = started(atlas_server(**{**given, "plugins": ["prompts", "bearer"]}), issuer.token())
    ada, ben = (chat(server, issuer.token(sub=name)).json()["usage"] for name in ("ada", "ben"))
    assert ada["prompt_tokens"] > ben["prompt_tokens"] + 8


def test_a_router_passes_tokens_on(start_server: StartRouter, issuer: Issuer, tmp_path: Path) -> None:
    """The router and each model's server check the token; the counts are in one file."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/one.gguf").symlink_to(MODEL)
    given = options(tmp_path, issuer, requests_per_day=1, quota_file=str(tmp_path / "quota.sqlite3"))
    arguments = ["--models-dir", str(tmp_path / "models"), "--atlas-plugin", "bearer", *given["arguments"]]
    router = start_server(arguments, model=None)

    def ask(token: str) -> int:
        return router.post(CHAT, {**BODY, "model": "one"}, headers=bearer(token)).status_code

    assert ask(issuer.token(aud="mail")) in (401, 503)
    router.wait_until(lambda: ask(issuer.token()) == 200)
    router.wait_until(lambda: ask(issuer.token()) == 429)
    assert ask(issuer.token(sub="ben")) == 200
