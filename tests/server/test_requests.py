"""GET /v1/atlas/requests after a known load."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.server.completions import ENDLESS_OPTIONS, endless
from tests.server.conformance import data_of, message_of
from tests.server.conftest import StartServer
from tests.server.harness import Server
from tests.server.keys import ADA, ADMIN, BEN, key_options, with_key

PATH = "/v1/atlas/requests"
PROMPT = list(range(5, 45))


def ended(server: Server, n: int, since: int = 0) -> list[dict[str, Any]]:
    """The `n` requests that ended after a number, once they have."""
    found: list[dict[str, Any]] = []

    def are_there() -> bool:
        found[:] = data_of(server.get(PATH, params={"since": since}))["requests"]
        return len(found) >= n

    server.wait_until(are_there)
    assert len(found) == n
    return found


def complete(server: Server, **fields: Any) -> int:
    body = {"prompt": PROMPT, "n_predict": 6, "ignore_eos": True, **fields}
    return server.post("/completion", body, headers={"X-Request-Id": "mine-1"}).status_code


def test_what_is_told_of_a_request(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(["--atlas-memory-path", tmp_path / "memory", *ENDLESS_OPTIONS])
    assert data_of(server.get(PATH)) == {"last": 0, "requests": []}
    assert complete(server, stream=True, atlas={"session_id": "ada"}) == 200
    (record,) = ended(server, 1)
    told = {name: record[name] for name in ("number", "request_id", "route", "outcome", "atlas", "streamed")}
    assert told == {
        "number": 1,
        "request_id": "mine-1",
        "route": "completion",
        "outcome": "ok",
        "atlas": True,
        "streamed": True,
    }
    assert record["tokens"] == {"prompt": len(PROMPT), "reused": 0, "answer": 6}
    assert record["memory"] == {"result": "no_match", "layer": 0, "moved": ""}
    times = record["ms"]
    assert 0 < times["prefill"] <= times["first_token"] <= times["total"]
    assert len(record["session"]) == 12
    assert record.keys().isdisjoint({"tenant", "session_id", "traceparent"})

    assert complete(server, prompt={"not": "a prompt"}) == 400
    heard: set[str] = set()
    with endless(server, prompt=[PROMPT, PROMPT[:20]]) as lines:
        while not {f'"index":{n}' for n in (0, 1)} <= heard:
            heard |= set(re.findall(r'"index":\d', next(lines)))
    failed, left = ended(server, 2, since=1)
    assert (failed["number"], failed["outcome"]) == (2, "error")
    assert (left["number"], left["outcome"]) == (3, "cancelled")
    assert left["tokens"]["prompt"] == len(PROMPT) + 20
    assert left["tokens"]["answer"] >= 2


def test_each_key_sees_its_own(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(key_options(tmp_path))
    ada, ben, admin = (with_key(server, key) for key in (ADA, BEN, ADMIN))
    for caller in (ada, ben, ada):
        assert complete(caller) == 200
    assert [one["number"] for one in ended(ada, 2)] == [1, 3]
    assert [one["number"] for one in ended(ben, 1)] == [2]
    assert "tenant" not in ended(ben, 1)[0]
    first, second, third = (one["tenant"] for one in ended(admin, 3))
    assert first == third != second
    assert with_key(server, None).get(PATH).status_code == 401


@pytest.mark.parametrize("since", ["-1", "x", "1e3"])
def test_numbers_that_are_none(server: Server, since: str) -> None:
    message = message_of(server.get(PATH, params={"since": since}), 400)
    assert message == f"Validation error in field 'since': value must be a whole number from 0 to {2**53}"
