"""Plugins that say whose a request is: who gets in, and that each name is a tenant of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.completions import BODIES
from tests.server.conversations import memory_options
from tests.server.harness import Server, write_plugin

# A key is "name:ada", "admin:root", "refuse:why", "raise:" or "static…", of which the plugin knows nothing.
PLUGIN = """
from atlas_plugin import Identity, Reject, hookimpl

@hookimpl(deadline_ms=60000)
def authenticate(caller):
    kind, _, rest = caller.key.partition(":")
    if kind == "name":
        return Identity(rest)
    if kind == "admin":
        return Identity(rest, is_admin=True)
    if kind == "refuse":
        where = [rest, "at", caller.method, caller.path, caller.headers.get("x-test", "")]
        return Reject(403, " ".join(where), {"X-Why": "where"})
    if kind == "raise":
        raise ValueError(rest)
    if kind == "nonsense":
        return True
"""
STATIC = "static-key"
ROOT = "Bearer admin:root"
SAVE, LOAD = "/v1/atlas/memory/save", "/v1/atlas/memory/load"


@pytest.fixture(scope="module", params=["without keys", "with a key"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    options = [*memory_options(directory), "--atlas-plugin", str(write_plugin(directory, PLUGIN))]
    if request.param == "with a key":
        options += ["--api-key", STATIC]
    with Server(options, directory=directory) as server:
        server.client.headers["Authorization"] = ROOT
        server.has_key = request.param == "with a key"  # type: ignore[attr-defined]
        yield server


def post(server: Server, key: str | None, path: str, body: Any, **headers: str) -> httpx.Response:
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.post(server.url + path, json=body, headers=headers, timeout=60)


def get(server: Server, key: str | None, path: str) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.get(server.url + path, headers=headers, timeout=60)


def complete(server: Server, key: str | None) -> httpx.Response:
    return post(server, key, "/v1/completions", BODIES["/v1/completions"])


@pytest.mark.parametrize("key", ["name:ada", "admin:root"])
def test_who_is_named_gets_in(server: Server, key: str) -> None:
    assert complete(server, key).status_code == 200
    assert get(server, key, "/v1/atlas/status").status_code == 200
    assert get(server, key, "/props").status_code == 200


@pytest.mark.parametrize("key", [None, "unknown", "name:"])
def test_who_is_not_named_does_not(server: Server, key: str | None) -> None:
    for answer in (
        complete(server, key),
        get(server, key, "/v1/atlas/status"),
        get(server, key, "/v1/atlas/config"),
        get(server, key, "/props"),
    ):
        assert answer.status_code == (503 if key == "name:" else 401), answer.text


def test_a_key_of_the_server_counts_where_the_plugin_says_nothing(server: Server) -> None:
    has_key = server.has_key  # type: ignore[attr-defined]
    assert complete(server, STATIC).status_code == (200 if has_key else 401)


def test_what_is_public_stays_so(server: Server) -> None:
    for path in ("/health", "/v1/health", "/v1/atlas/dashboard"):
        assert get(server, None, path).status_code == 200, path


def test_a_refusal_is_the_plugins(server: Server) -> None:
    answer = post(
        server, "refuse:expired", "/v1/completions", BODIES["/v1/completions"], **{"X-Test": "sees headers"}
    )
    assert answer.status_code == 403
    assert answer.headers["X-Why"] == "where"
    assert answer.json()["error"]["message"] == "expired at POST /v1/completions sees headers"
    answer = get(server, "refuse:expired", "/v1/atlas/status")
    assert answer.json()["error"]["message"] == "expired at GET /v1/atlas/status "
    # the next request on the connection is another's
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/props", headers={"Authorization": "Bearer refuse:me"}).status_code == 403
        assert client.get("/props").status_code == 401
        assert client.get("/props", headers={"Authorization": "Bearer name:me"}).status_code == 200
        assert client.get("/props").status_code == 401


@pytest.mark.parametrize("key", ["raise:x", "nonsense:x"])
def test_one_that_fails_lets_nobody_in(server: Server, key: str) -> None:
    answer = complete(server, key)
    assert answer.status_code == 503
    assert "plugin 'probe' must allow this request and failed" in answer.text


def test_an_admin_may_what_others_may_not(server: Server) -> None:
    assert get(server, "name:ada", "/v1/atlas/config").status_code == 403
    assert get(server, "admin:root", "/v1/atlas/config").status_code == 200


def test_each_name_has_what_is_its_own(server: Server) -> None:
    state = {"context_id": "mine", "state": {"whose": "ada"}}
    assert post(server, "name:ada", SAVE, state).status_code == 200
    assert post(server, "name:ben", LOAD, {"context_id": "mine"}).status_code == 404
    assert post(server, "name:ada", LOAD, {"context_id": "mine"}).json()["data"]["state"] == {"whose": "ada"}
    prompt = {
        "prompt": "A long prompt that only one of them has ever sent to this server. " * 8,
        "n_predict": 1,
    }
    for name, reused in (("name:cleo", False), ("name:dora", False), ("name:cleo", True)):
        assert (post(server, name, "/completion", prompt).json()["timings"]["cache_n"] > 64) == reused, name


def test_what_is_kept_of_a_name_outlives_the_server(tmp_path: Path) -> None:
    options = [*memory_options(tmp_path), "--atlas-plugin", str(write_plugin(tmp_path, PLUGIN))]
    prompt = {"prompt": "A long prompt that is kept under the name of who sent it. " * 16, "n_predict": 1}
    with Server(options, directory=tmp_path) as server:
        server.client.headers["Authorization"] = ROOT
        server.wait_until(lambda: server.get("/v1/atlas/status").json()["data"]["memory"].get("root"))
        assert post(server, "name:ada", "/completion", prompt).status_code == 200
        assert server.post("/v1/atlas/memory/flush", {}).status_code == 200
        server.kill()
        server.start()
        status = "/v1/atlas/status"
        server.wait_until(lambda: server.get(status).json()["data"]["memory"]["disk"]["index_complete"])
        assert post(server, "name:ben", "/completion", prompt).json()["timings"]["cache_n"] == 0
        assert post(server, "name:ada", "/completion", prompt).json()["timings"]["cache_n"] > 64
