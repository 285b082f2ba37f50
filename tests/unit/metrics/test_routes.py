"""The three routes over a host that answers known families."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from atlas_plugin import Request, Response, ServerError, StreamResponse
from atlas_plugin.host.host import EmbeddedHost
from atlas_plugin.http import Headers
from atlas_plugin.metrics import Family, stream
from atlas_plugin.metrics.calls import CallWaits
from atlas_plugin.metrics.stream import EventStream
from atlas_plugin.testing import Application, FakeHost
from tests.builtins import BUILTIN
from tests.unit.embedding.host import Server

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]
Eventually = Callable[[Callable[[], object]], None]

PATH = "/v1/atlas/metrics"
CURRENT = {
    "total_requests": int,
    "active_requests": int,
    "completed_requests": int,
    "failed_requests": int,
    "avg_latency_ms": float,
    "max_latency_ms": float,
    "min_latency_ms": float,
    "memory_usage_bytes": int,
    "cache_hits": int,
    "cache_misses": int,
    "throughput_tokens_per_sec": float,
    "uptime_seconds": float,
}
PLUGIN = """
from atlas_plugin import hookimpl

@hookimpl
def report_status():
    raise ValueError("sick")
"""


@pytest.fixture
def host(families: list[Family]) -> FakeHost:
    host = FakeHost(metrics_update_interval_ms=10, metrics_history_size=3)
    host.families = families
    return host


def data_of(response: Response) -> dict[str, Any]:
    assert response.status == 200, response.body
    document = msgspec.json.decode(response.body)
    assert document.keys() == {"status", "data"}
    assert document["status"] == "success"
    data: dict[str, Any] = document["data"]
    return data


def message_of(response: Response | StreamResponse, status: int) -> str:
    assert isinstance(response, Response)
    assert response.status == status
    message: str = msgspec.json.decode(response.body)["error"]["message"]
    return message


def follow(application: Application, *, is_admin: bool = True, **query: str) -> EventStream:
    response = application.handle(Request("GET", f"{PATH}/stream", query, is_admin=is_admin))
    assert isinstance(response, StreamResponse)
    assert response.content_type == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-cache"
    assert isinstance(response.chunks, EventStream)
    return response.chunks


def pieces_until(pieces: Iterator[bytes], wanted: bytes, number: int) -> list[bytes]:
    """The first `number` pieces that begin with `wanted`."""
    found: list[bytes] = []
    while len(found) < number:
        piece = next(pieces)
        if piece.startswith(wanted):
            found.append(piece)
    return found


class TestJson:
    def test_fields(self, host: FakeHost, start: Start, call: Call) -> None:
        data = data_of(call(start(host), "GET", PATH))
        assert data.keys() == {"current", "history_size", "server_health"}
        current = data["current"]
        assert {name: type(value) for name, value in current.items()} == CURRENT
        expected = {
            "total_requests": 11,
            "active_requests": 1,
            "completed_requests": 7,
            "failed_requests": 3,
            "memory_usage_bytes": 4096,
            "cache_hits": 4,
            "cache_misses": 3,
            "uptime_seconds": 8.0,
        }
        assert expected.items() <= current.items()
        assert data["server_health"] is True

    def test_history(self, host: FakeHost, start: Start, call: Call, eventually: Eventually) -> None:
        application = start(host)
        eventually(lambda: data_of(call(application, "GET", PATH))["history_size"] == 3)
        data = data_of(call(application, "GET", PATH, query={"history": "1"}))
        assert (len(data["history"]), data["history_size"]) == (3, 3)
        times = [entry["timestamp"] for entry in data["history"]]
        assert times == sorted(times)
        assert all(entry.keys() == CURRENT.keys() | {"timestamp"} for entry in data["history"])
        assert "history" not in data_of(call(application, "GET", PATH, query={"history": "0"}))

    def test_health(self, host: FakeHost, start: Start, call: Call, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(PLUGIN)
        host.entries = FakeHost(plugins=[str(tmp_path / "mine.py")]).entries
        assert data_of(call(start(host), "GET", PATH))["server_health"] is False

    @pytest.mark.parametrize("value", ["", "2", "true"])
    def test_bad_history(self, host: FakeHost, start: Start, call: Call, value: str) -> None:
        response = call(start(host), "GET", PATH, query={"history": value})
        assert message_of(response, 400) == "Validation error in field 'history': value must be 0 or 1"

    def test_settings_are_followed(
        self, host: FakeHost, start: Start, call: Call, eventually: Eventually
    ) -> None:
        application = start(host)
        body = b'{"settings": {"metrics_history_size": 6}}'
        assert call(application, "POST", "/v1/atlas/config", body=body).status == 200
        eventually(lambda: data_of(call(application, "GET", PATH))["history_size"] == 6)


class TestStream:
    def test_events(self, host: FakeHost, start: Start) -> None:
        pieces = follow(start(host))
        assert next(pieces) == b"retry: 3000\n\n"
        events = [piece.decode().splitlines() for piece in pieces_until(pieces, b"id: ", 3)]
        numbers = [int(lines[0].removeprefix("id: ")) for lines in events]
        assert numbers == sorted(set(numbers))
        data = msgspec.json.decode(events[0][1].removeprefix("data: "))
        assert events[0][2:] == [""]
        assert data.pop("timestamp") > 1e9
        assert data.pop("avg_latency") == 2.0
        assert 0 < data.pop("tokens_per_second") <= 25.0
        assert data == {
            "active_requests": 1,
            "cache_hit_rate": 0.5714,
            "pool_contexts": 4,
            "pool_contexts_in_use": 1,
            "total_requests": 11,
            "memory_usage_bytes": 4096,
            "time_to_first_token_ms": {"p50": 2.0, "p90": 3.6, "p99": 3.96},
            "inter_token_ms": {"p50": None, "p90": None, "p99": None},
            "hit_rates": {"slot": 0.2, "ram": 0.3, "disk": 0.0, "shared": 0.0, "plugins": 0.0},
            "layers": {
                "ram": {"bytes": 4096, "budget_bytes": 1 << 20},
                "disk": {"bytes": 1 << 20, "budget_bytes": None},
            },
        }

    def test_heartbeat(self, host: FakeHost, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stream, "HEARTBEAT_S", 0.0)
        monkeypatch.setattr(stream, "_POLL_S", 0.01)
        pieces = follow(start(host), interval="3600000")
        assert pieces_until(pieces, b": heartbeat\n\n", 2)

    def test_nothing_is_sent_before(
        self, host: FakeHost, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stream, "_POLL_S", 0.01)
        pieces = follow(start(host), interval="3600000")
        pieces_until(pieces, b"id: ", 1)
        assert [next(pieces) for _ in range(3)] == [b""] * 3

    def test_tenants_do_not_make_it_sample_more(
        self, families: list[Family], start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stream, "_POLL_S", 0.05)
        host = FakeHost(metrics_update_interval_ms=3_600_000)
        host.families = families
        pieces = follow(start(host), is_admin=False, interval="10")
        pieces_until(pieces, b"id: ", 1)
        assert [next(pieces) for _ in range(3)] == [b""] * 3

    def test_a_client_that_leaves_is_forgotten(self, host: FakeHost, start: Start, call: Call) -> None:
        application = start(host)
        streams = [follow(application) for _ in range(3)]
        next(streams[0])
        assert subscribers(application, call) == 3
        for pieces in streams:
            pieces.close()
        assert subscribers(application, call) == 0

    def test_the_end_of_the_server_is_theirs(self, host: FakeHost, start: Start) -> None:
        application = start(host)
        pieces = follow(application, interval="3600000")
        pieces_until(pieces, b"id: ", 1)
        application.stop()
        assert list(pieces) == []

    @pytest.mark.parametrize("value", ["", "9", "3600001", "1.5", "-10", " 10", "1_000", "٣٣", "9" * 5000])
    def test_bad_interval(self, host: FakeHost, start: Start, value: str) -> None:
        response = start(host).handle(Request("GET", f"{PATH}/stream", {"interval": value}))
        assert message_of(response, 400) == (
            "Validation error in field 'interval': value must be an integer between 10 and 3600000"
        )


class TestPrometheus:
    def test_it_has_what_python_adds(self, host: FakeHost, start: Start, call: Call, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(PLUGIN)
        host.entries = FakeHost(plugins=[str(tmp_path / "mine.py"), "no:eviction"]).entries
        application = start(host)
        call(application, "GET", "/v1/atlas/status")
        text = call(application, "GET", f"{PATH}/prometheus")
        assert text.content_type == "text/plain; version=0.0.4; charset=utf-8"
        parsed = {one.name: one.samples for one in text_string_to_metric_families(text.body.decode())}
        # the server itself writes its own
        assert not {one.name.removesuffix("_total") for one in host.families} & parsed.keys()
        mine = {"plugin": "mine", "hook": "report_status"}
        assert [one.value for one in parsed["atlas_hook_calls"] if one.labels == mine] == [1.0]
        assert [one.value for one in parsed["atlas_hook_errors"] if one.labels == mine] == [1.0]
        assert [one.value > 0 for one in parsed["atlas_hook_seconds"] if one.labels == mine] == [True]
        states = {one.labels["state"]: one.value for one in parsed["atlas_plugins"]}
        assert states == {"active": len(BUILTIN), "disabled": 1.0, "failed": 0.0}
        assert parsed["atlas_python_allocated_blocks"][0].value > 0
        generations = [one.labels["generation"] for one in parsed["atlas_python_gc_collections"]]
        assert generations == ["0", "1", "2"]

    def test_openmetrics(self, host: FakeHost, start: Start, call: Call) -> None:
        headers = Headers([("Accept", "application/openmetrics-text")])
        response = call(start(host), "GET", f"{PATH}/prometheus", headers=headers)
        assert response.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert response.body.endswith(b"# EOF\n")


@pytest.mark.parametrize("path", [PATH, f"{PATH}/stream", f"{PATH}/prometheus"])
def test_collection_that_is_off(start: Start, call: Call, path: str) -> None:
    host = FakeHost(enable_metrics_collection=False)
    response = call(start(host), "GET", path)
    assert message_of(response, 503) == host.status()["in_effect"]["metrics_off"]


def test_a_host_that_cannot_answer(
    host: FakeHost, start: Start, call: Call, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[Family]:
        raise ServerError("no metrics today")

    monkeypatch.setattr(host, "metrics", fail)
    application = start(host)
    assert message_of(call(application, "GET", PATH), 500) == "no metrics today"

    def problems() -> Any:
        return msgspec.json.decode(call(application, "GET", "/v1/atlas/status").body)["problems"]

    eventually(problems)
    assert problems() == ["metrics are not sampled: no metrics today"]


def test_calls_into_python_and_their_waits() -> None:
    server = Server(FakeHost(metrics_update_interval_ms=10))
    server.start()
    server.get(PATH)
    stream = server.get(f"{PATH}/stream").stream
    server.next(stream)
    server.close(stream)
    text = server.get(f"{PATH}/prometheus").body.decode()
    server.stop()
    parsed = {one.name: one.samples for one in text_string_to_metric_families(text)}
    calls = {one.labels["function"]: one.value for one in parsed["atlas_python_calls"]}
    assert calls == {"request": 3.0, "stream_next": 1.0, "call": 0.0}
    waits = {one.labels["function"]: one.value for one in parsed["atlas_python_wait_seconds"]}
    assert 0 < waits["request"] < 60
    assert waits["call"] == 0


def test_clocks_that_disagree_are_no_wait() -> None:
    waits = CallWaits()
    waits.add("call", -5)
    calls, seconds = waits.families()
    assert [sum(one.number for one in family.samples) for family in (calls, seconds)] == [1, 0]


def test_the_query(families: list[Family]) -> None:
    server = Server(FakeHost())
    server.fake.families = families
    assert EmbeddedHost(server.ffi, server.lib, server.api, server.host).metrics() == families


def subscribers(application: Application, call: Call) -> float:
    text = call(application, "GET", f"{PATH}/prometheus").body.decode()
    parsed = {one.name: one.samples for one in text_string_to_metric_families(text)}
    value: float = parsed["atlas_metrics_subscribers"][0].value
    return value
