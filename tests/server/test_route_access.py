"""docs/security.md says which route gives what to whom: each row is asked for from the outside."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from atlas_plugin import facts
from tests.server.conftest import StartServer
from tests.server.conversations import memory_options
from tests.server.harness import REPOSITORY, Server
from tests.server.keys import ADA, ADMIN, BEN, key_options, with_key

ROLES = ("no key", "one key", "tenant", "admin")
OPENAPI = "/v1/atlas/openapi.json"
MEMORY = "/v1/atlas/memory"

OURS, OTHERS = "of-ours", "of-others"
RESPONSE_ROUTE = "/v1/responses"
CONVERSATION_ROUTE = "/v1/conversations"
COMPLETION_ROUTE = "/v1/chat/completions"
NAMES: dict[str, dict[str, str]] = {}
"""By role: what paths name of what is kept. What deletes it comes last in the table."""
NO_NAMES = defaultdict(lambda: "none", name="status")
SHARED, KEY_FILE = "shared-by-all", "key-of-the-disk"
"""Parts of paths that the server with several keys is started with."""
BODIES: dict[str, Any] = {
    "/v1/atlas/config": {"settings": {"shutdown_timeout_s": 5}},
    f"{MEMORY}/save": {"context_id": OURS, "state": {}},
    f"{MEMORY}/load": {"context_id": OURS},
    f"{MEMORY}/delete": {"context_id": f"{OURS}-to-delete"},
    f"{MEMORY}/pin": {"session_id": OURS},
    f"{MEMORY}/unpin": {"session_id": OURS},
    CONVERSATION_ROUTE: {},
    f"{CONVERSATION_ROUTE}/{{conversation_id}}": {"metadata": {"of": OURS}},
    f"{CONVERSATION_ROUTE}/{{conversation_id}}/items": {"items": [{"role": "user", "content": OURS}]},
    f"{COMPLETION_ROUTE}/{{completion_id}}": {"metadata": {}},
}


def table() -> dict[str, dict[str, str]]:
    """The words of the page's table, by operation and role."""
    text = (REPOSITORY / "docs/security.md").read_text(encoding="utf-8")
    head, *rows = re.findall(r"^\| (`\w+ /v1/\S+`|route) \| (.*) \|$", text, re.MULTILINE)
    assert tuple(head[1].split(" | ")) == ROLES
    return {row[0].strip("`"): dict(zip(ROLES, row[1].split(" | "), strict=True)) for row in rows}


TABLE = table()


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """The servers as the roles call them; each has a session and contexts, and there are those of others."""
    places = {name: tmp_path_factory.mktemp(name.replace(" ", "-")) for name in ("no key", "one key", "keys")}
    (places["keys"] / SHARED).mkdir()
    (places["keys"] / KEY_FILE).write_bytes(bytes(range(32)))
    (places["keys"] / KEY_FILE).chmod(0o600)
    with_secrets = ["--atlas-shared-url", f"file://{places['keys'] / SHARED}"]
    with_secrets += ["--atlas-encryption-key-file", f"{places['keys'] / KEY_FILE}"]
    with (
        Server(memory_options(places["no key"]), directory=places["no key"]) as open_to_all,
        Server(memory_options(places["one key"]), directory=places["one key"], api_key=ADA) as of_one,
        Server([*key_options(places["keys"]), *with_secrets], directory=places["keys"]) as of_many,
    ):
        found = {
            "no key": open_to_all,
            "one key": of_one,
            "tenant": with_key(of_many, ADA),
            "admin": with_key(of_many, ADMIN),
        }
        for role, caller in found.items():
            keep(caller, OURS)
            NAMES[role] = names_of(caller)
            caller.post(f"{MEMORY}/save", {"context_id": f"{OURS}-to-delete", "state": {}})
        keep(with_key(of_many, BEN), OTHERS)
        kept(with_key(of_many, BEN), COMPLETION_ROUTE, {**asked(OTHERS), "store": True})
        yield found


def asked(text: str) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 1}


def kept(caller: Server, route: str, body: dict[str, Any]) -> str:
    """The id of what was answered and kept."""
    name: str = caller.post(route, body).json()["id"]
    return name


def keep(caller: Server, name: str) -> None:
    """A session, and a context with a word, of that name."""
    body = {"prompt": f"{name} {name}", "n_predict": 1, "atlas": {"session_id": name}}
    assert caller.post("/completion", body).status_code == 200
    assert caller.post(f"{MEMORY}/save", {"context_id": name, "state": {"word": f"word-{name}"}}).is_success


def names_of(caller: Server) -> dict[str, str]:
    """Of a response, a chat completion and a conversation with an item, which are made."""
    item = {"type": "message", "id": "msg_1", "role": "user", "content": OURS}
    asked_later = {"input": OURS, "max_output_tokens": 1, "background": True}
    return {
        "name": "status",
        "response_id": kept(caller, RESPONSE_ROUTE, asked_later),
        "completion_id": kept(caller, COMPLETION_ROUTE, {**asked(OURS), "store": True}),
        "conversation_id": kept(caller, CONVERSATION_ROUTE, {"items": [item]}),
        "item_id": item["id"],
    }


def ask(caller: Server, operation: str, names: Mapping[str, str] = NO_NAMES) -> httpx.Response:
    """The answer to a valid request; of what has no end, its beginning."""
    method, path = operation.split()
    body = BODIES.get(path, {}) if method == "POST" else None
    path = path.format_map(names)
    with caller.client.stream(method, path, json=body) as answer:
        if "event-stream" not in answer.headers.get("content-type", ""):
            answer.read()
        return answer


def test_every_route_has_a_row(callers: dict[str, Server]) -> None:
    paths = callers["no key"].get(OPENAPI).json()["paths"]
    ours = [
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if path.startswith(("/v1/atlas/", f"{RESPONSE_ROUTE}/", CONVERSATION_ROUTE, f"{COMPLETION_ROUTE}/"))
        or (path, method) == (COMPLETION_ROUTE, "get")
    ]
    assert sorted(TABLE) == sorted(ours)
    answered_in_cpp = {value for name, value in vars(facts).items() if name.startswith("ROUTE_")}
    assert answered_in_cpp < {operation.split()[1] for operation in TABLE}


@pytest.mark.parametrize("operation", list(TABLE))
@pytest.mark.parametrize("role", ROLES)
def test_row(callers: dict[str, Server], operation: str, role: str) -> None:
    promised = TABLE[operation][role]
    answer = ask(callers[role], operation, NAMES[role])
    if promised == "403":
        assert answer.status_code == 403
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == (403, "authentication_error")
        assert "--atlas-admin-key" in error["message"]
        return
    assert promised in ("all", "own", "part")
    assert answer.status_code == 200
    if role == "tenant" and not operation.endswith("/stream"):
        place = callers["admin"].get("/v1/atlas/status").json()["data"]["memory"]["path"]
        assert not [
            secret for secret in (OTHERS, place, SHARED, KEY_FILE, BEN, ADMIN) if secret in answer.text
        ]


def test_own_is_less_than_all(callers: dict[str, Server]) -> None:
    """What a tenant does not see is there to be seen."""
    assert OTHERS in callers["admin"].post(f"{MEMORY}/list", {"limit": 1000}).text
    assert SHARED in callers["admin"].get("/v1/atlas/status").text
    assert KEY_FILE in callers["admin"].get("/v1/atlas/config").text
    counts = [
        len(callers[role].get("/v1/atlas/requests").json()["data"]["requests"])
        for role in ("tenant", "admin")
    ]
    assert 0 < counts[0] < counts[1]


def test_without_an_admin_every_key_is_a_tenants(start_server: StartServer) -> None:
    server = with_key(start_server(["--api-key", f"{ADA},{BEN}"]), ADA)
    for operation, promised in TABLE.items():
        refused = ask(server, operation).status_code == 403
        assert refused == (promised["tenant"] == "403"), operation


class TestLimits:
    """Of what a tenant may ask for at once, and in a second."""

    STREAM = "/v1/atlas/metrics/stream"

    def test_in_progress(self, start_server: StartServer) -> None:
        options = ["--api-key", f"{ADA},{BEN}", "--atlas-admin-key", ADMIN, "--atlas-max-calls-per-key", "2"]
        server = start_server(options)
        ada, ben, admin = (with_key(server, key) for key in (ADA, BEN, ADMIN))
        with ada.client.stream("GET", self.STREAM), ada.client.stream("GET", self.STREAM):
            for path in (self.STREAM, "/v1/atlas/status", "/v1/atlas/memory/list"):
                answer = ada.get(path)
                assert answer.status_code == 429
                assert answer.json()["error"]["type"] == "rate_limit_error"
                assert int(answer.headers["Retry-After"]) >= 1
            assert ada.post("/completion", {"prompt": "a", "n_predict": 1}).status_code == 200
            assert ben.get("/v1/atlas/status").status_code == 200
            with admin.client.stream("GET", self.STREAM), admin.client.stream("GET", self.STREAM):
                assert admin.get("/v1/atlas/status").status_code == 200
        ada.wait_until(lambda: ada.answers("/v1/atlas/status"))

    def test_a_second(self, start_server: StartServer) -> None:
        server = start_server(["--api-key", f"{ADA},{BEN}", "--atlas-admin-key", ADMIN])
        ada, ben, admin = (with_key(server, key) for key in (ADA, BEN, ADMIN))
        limit = {"settings": {"key_calls_per_s": 0.001}}
        assert admin.post("/v1/atlas/config", limit).status_code == 200
        for caller in (ada, ben):
            assert [caller.get("/v1/atlas/status").status_code for _ in range(2)] == [200, 429]
        assert admin.post("/v1/atlas/config", {"settings": {"key_calls_per_s": 0}}).status_code == 200
        assert ada.get("/v1/atlas/status").status_code == 200
