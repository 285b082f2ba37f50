"""The route over the completion requests that ended."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from atlas_plugin import Response
from atlas_plugin.testing import Application, FakeHost

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]

ADA, BEN = "a" * 16, "b" * 16


def record(number: int, tenant: str = "") -> dict[str, Any]:
    """As a server keeps it."""
    return {
        "number": number,
        "request_id": f"{number:016x}",
        "route": "chat",
        "outcome": "ok",
        "atlas": True,
        "tenant": tenant,
        "session": "0123456789ab",
        "session_id": "ada",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "ended": 1764000000.5,
        "streamed": True,
        "ms": {"total": 12.5, "overhead": 0.1, "wait": 0.0, "queue": 0.2, "restore": None, "prefill": 2.0},
        "tokens": {"prompt": 12, "reused": 8, "answer": 4},
        "memory": {"result": "restored", "layer": 2, "moved": ""},
        "degraded": "",
    }


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def ask(host: FakeHost, start: Start, call: Call) -> Callable[..., Any]:
    """ask(since, **fields of the request): the document of the answer."""
    application = start(host)

    def asked(since: str | None = None, **fields: Any) -> Any:
        query = {} if since is None else {"since": since}
        return msgspec.json.decode(call(application, "GET", "/v1/atlas/requests", query=query, **fields).body)

    return asked


def numbers(document: Any) -> list[int]:
    return [one["number"] for one in document["data"]["requests"]]


def test_none_yet(ask: Callable[..., Any]) -> None:
    assert ask() == {"status": "success", "data": {"last": 0, "requests": []}}


def test_those_after_a_number(host: FakeHost, ask: Callable[..., Any]) -> None:
    host.requests_ended = [record(number) for number in (4, 5, 6)]
    found = ask("4")
    assert (numbers(found), found["data"]["last"]) == ([5, 6], 6)
    assert found["data"]["requests"][0] == {
        name: value
        for name, value in record(5).items()
        if name not in ("tenant", "session_id", "traceparent")
    }
    assert ask("6")["data"] == {"last": 6, "requests": []}


def test_more_than_the_server_tells_at_once(host: FakeHost, ask: Callable[..., Any]) -> None:
    host.requests_ended = [record(number) for number in range(11, 1035)]
    assert numbers(ask()) == list(range(11, 1035))


def test_each_tenant_sees_its_own(host: FakeHost, ask: Callable[..., Any]) -> None:
    host.requests_ended = [record(1, ADA), record(2, BEN), record(3), record(4, ADA)]
    mine = ask(tenant=ADA, is_admin=False)
    assert (numbers(mine), mine["data"]["last"]) == ([1, 4], 4)
    assert all("tenant" not in one for one in mine["data"]["requests"])
    assert numbers(ask(tenant="", is_admin=False)) == [3]
    assert [one.get("tenant") for one in ask()["data"]["requests"]] == [ADA, BEN, None, ADA]


@pytest.mark.parametrize("since", ["", "-1", "1.5", "x", "٣", str(2**53 + 1), "9" * 5000])
def test_numbers_that_are_none(ask: Callable[..., Any], since: str) -> None:
    error = ask(since)["error"]
    assert error["code"] == 400
    assert error["message"].startswith(
        "Validation error in field 'since': value must be a whole number from 0"
    )
