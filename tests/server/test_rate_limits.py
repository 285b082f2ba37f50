"""Limits on completions: per API key and per session, in requests per second and in tokens per minute.

The periods are so long that a test never sees one end.
"""

from typing import Any

import httpx
import pytest

from tests.server.completions import BODIES, ROUTES
from tests.server.conftest import StartServer
from tests.server.harness import Server
from tests.server.keys import ADA, ADMIN, BEN, with_key

KEYS = ["--api-key", f"{ADA},{BEN}", "--atlas-admin-key", ADMIN]
ONE_IN_1000_S = "0.001"
COMPLETION = {"prompt": "My name is Ada.", "n_predict": 4}


def complete(caller: Server, session: str | None = None, **fields: Any) -> httpx.Response:
    """The answer to a completion, a stock one where no session is given."""
    atlas = {"atlas": {"session_id": session}} if session else {}
    return caller.post("/completion", {**COMPLETION, **atlas, **fields})


def retry_after(answer: httpx.Response, whose: str) -> int:
    """The seconds that a refusal says to wait."""
    assert answer.status_code == 429, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "type", "timestamp"}
    assert (error["code"], error["type"]) == (429, "rate_limit_error")
    assert error["message"] == f"Rate limit exceeded for this {whose}"
    return int(answer.headers["Retry-After"])


def tokens_of(answer: httpx.Response) -> int:
    """What a completion cost."""
    timings = answer.json()["timings"]
    total: int = timings["cache_n"] + timings["prompt_n"] + timings["predicted_n"]
    return total


class TestKeys:
    def test_requests(self, start_server: StartServer) -> None:
        server = start_server([*KEYS, "--atlas-key-requests-per-s", ONE_IN_1000_S])
        ada, ben, admin = (with_key(server, key) for key in (ADA, BEN, ADMIN))
        assert complete(ada, "ada").status_code == 200
        for path in ROUTES:
            more: list[dict[str, Any]] = [
                {},
                {"stream": True},
                {"atlas": {}},
                {"atlas": {"session_id": "ben"}},
            ]
            for fields in more:
                assert 0 < retry_after(ada.post(path, {**BODIES[path], **fields}), "API key") <= 1000
        x_api_key = with_key(server, ADA, "X-Api-Key")
        assert retry_after(complete(x_api_key), "API key")
        for caller in (ben, admin):
            assert complete(caller).status_code == 200
            assert retry_after(complete(caller), "API key")
        # what computes nothing goes on
        assert ada.get("/v1/atlas/status").status_code == 200
        assert ada.post("/tokenize", {"content": "a"}).status_code == 200
        assert ada.post("/v1/atlas/memory/list").status_code == 503  # it has no place

    def test_several_at_once(self, start_server: StartServer) -> None:
        server = start_server(["--atlas-key-requests-per-s", "3"], api_key=ADA)
        assert [complete(server).status_code for _ in range(3)] == [200] * 3

    def test_tokens(self, start_server: StartServer) -> None:
        server = start_server([*KEYS, "--atlas-key-tokens-per-min", "0.01"])
        ada, ben = with_key(server, ADA), with_key(server, BEN)
        assert tokens_of(complete(ada)) > 4
        assert retry_after(complete(ada, "ada"), "API key") == 3600
        streamed = ben.post("/completion", {**COMPLETION, "stream": True})
        assert streamed.status_code == 200
        ben.wait_until(lambda: complete(ben).status_code == 429)

    def test_tokens_of_a_stream_that_the_client_left(self, start_server: StartServer) -> None:
        server = start_server([*KEYS, "--atlas-key-tokens-per-min", "0.01"])
        ada = with_key(server, ADA)
        endless = {**COMPLETION, "n_predict": 2000, "ignore_eos": True, "stream": True}
        with ada.client.stream("POST", "/completion", json=endless) as answer:
            next(answer.iter_lines())
        ada.wait_until(lambda: not any(slot["is_processing"] for slot in ada.get("/slots").json()))
        ada.wait_until(lambda: complete(ada).status_code == 429)

    @pytest.mark.parametrize(
        ("options", "keys"),
        [
            ([*KEYS, "--atlas-share-between-keys"], [ADA, BEN, ADMIN]),
            (["--api-key", ADA, "--atlas-admin-key", ADMIN], [ADA, ADMIN]),
        ],
        ids=["shared", "one-key-and-the-admin"],
    )
    def test_each_key_has_its_own(
        self, start_server: StartServer, options: list[str], keys: list[str]
    ) -> None:
        server = start_server([*options, "--atlas-key-requests-per-s", ONE_IN_1000_S])
        for key in keys:
            assert complete(with_key(server, key)).status_code == 200
            assert retry_after(complete(with_key(server, key)), "API key")

    def test_without_keys_all_are_one(self, start_server: StartServer) -> None:
        server = start_server(["--atlas-key-requests-per-s", ONE_IN_1000_S])
        assert complete(server).status_code == 200
        for key in (None, ADA, BEN):
            assert retry_after(complete(with_key(server, key)), "API key")


class TestSessions:
    def test_requests(self, start_server: StartServer) -> None:
        server = start_server([*KEYS, "--atlas-session-requests-per-s", ONE_IN_1000_S])
        ada, ben = with_key(server, ADA), with_key(server, BEN)
        assert complete(ada, "one").status_code == 200
        assert 0 < retry_after(complete(ada, "one"), "session") <= 1000
        header = ada.client.post("/completion", json=COMPLETION, headers={"X-Conversation-Id": "one"})
        assert retry_after(header, "session")
        for caller, session in ((ada, "two"), (ada, None), (ada, None), (ben, "one")):
            assert complete(caller, session).status_code == 200

    def test_tokens(self, start_server: StartServer) -> None:
        server = start_server([*KEYS, "--atlas-session-tokens-per-min", "0.01"])
        ada, ben = with_key(server, ADA), with_key(server, BEN)
        assert complete(ada, "one").status_code == 200
        assert retry_after(complete(ada, "one"), "session") == 3600
        for caller, session in ((ada, "two"), (ada, None), (ada, None), (ben, "one")):
            assert complete(caller, session).status_code == 200

    def test_refused_for_its_key_costs_the_session_nothing(self, start_server: StartServer) -> None:
        limits = [
            "--atlas-session-requests-per-s",
            ONE_IN_1000_S,
            "--atlas-key-requests-per-s",
            ONE_IN_1000_S,
        ]
        server = start_server([*KEYS, *limits])
        ada, admin = with_key(server, ADA), with_key(server, ADMIN)
        assert complete(ada, "one").status_code == 200
        assert retry_after(complete(ada, "two"), "API key")
        change = {"settings": {"key_requests_per_s": 0}}
        assert admin.post("/v1/atlas/config", change).status_code == 200
        assert complete(ada, "two").status_code == 200
        assert retry_after(complete(ada, "two"), "session")


def test_a_request_that_is_wrong_costs_nothing(start_server: StartServer) -> None:
    server = start_server(["--atlas-key-requests-per-s", ONE_IN_1000_S])
    for _ in range(2):
        assert complete(server, atlas={"memory_layers": 0}).status_code == 400
    assert complete(server).status_code == 200
    assert complete(server, atlas={"memory_layers": 0}).status_code == 400


@pytest.mark.parametrize(
    ("setting", "limit", "session"),
    [
        ("key_requests_per_s", 0.001, None),
        ("key_tokens_per_min", 0.01, None),
        ("session_requests_per_s", 0.001, "one"),
        ("session_tokens_per_min", 0.01, "one"),
    ],
)
def test_limits_change_while_the_server_runs(
    start_server: StartServer, setting: str, limit: float, session: str | None
) -> None:
    server = start_server(KEYS)
    ada, admin = with_key(server, ADA), with_key(server, ADMIN)

    def change(value: float) -> None:
        answer = admin.post("/v1/atlas/config", {"settings": {setting: value}})
        assert answer.status_code == 200, answer.text

    for _ in range(2):
        assert [complete(ada, session).status_code for _ in range(3)] == [200] * 3
        change(limit)
        ada.wait_until(lambda: complete(ada, session).status_code == 429)
        change(0)
