"""The metrics of a server whose load is known, to the last request and token."""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.server.completions import ENDLESS_OPTIONS, endless
from tests.server.conformance import configure, data_of, message_of
from tests.server.conftest import StartServer
from tests.server.harness import Server

METRICS = "/v1/atlas/metrics"
STREAM = f"{METRICS}/stream"
PROMETHEUS = f"{METRICS}/prometheus"
SUBSCRIBERS = 100
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
PROMPT = list(range(5, 45))
ANSWER = 8


@pytest.fixture
def measured(start_server: StartServer, tmp_path: Path) -> Server:
    """A server that nobody else asks, with an interval short enough for tests."""
    return start_server(
        ["--atlas-memory-path", tmp_path / "memory", "--atlas-metrics-interval", "20", *ENDLESS_OPTIONS]
    )


def current(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = data_of(server.get(METRICS))["current"]
    return found


def complete(server: Server, **fields: Any) -> httpx.Response:
    body = {"prompt": PROMPT, "n_predict": ANSWER, "ignore_eos": True, "temperature": 0, **fields}
    return server.post("/completion", body)


def samples(server: Server, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """The samples of that name that are not zero, by their labels."""
    text = server.get(PROMETHEUS).text
    return {
        frozenset(one.labels.items()): one.value
        for family in parse_text(text)
        for one in family.samples
        if one.name == name and one.value
    }


def total(server: Server, name: str, **labels: str) -> float:
    return sum(
        value for found, value in samples(server, name).items() if labels.items() <= dict(found).items()
    )


def events(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the data of each event of a stream."""
    number = -1
    for line in lines:
        if line.startswith("id: "):
            number = int(line.removeprefix("id: "))
        elif line.startswith("data: "):
            yield number, json.loads(line.removeprefix("data: "))


class TestKnownLoad:
    def test_requests_and_tokens_are_counted(self, measured: Server) -> None:
        for _ in range(3):
            assert complete(measured, atlas={}).status_code == 200
        assert complete(measured, stream=True).status_code == 200
        assert complete(measured, atlas={"memory_layers": 11}).status_code == 400
        measured.wait_until(lambda: current(measured)["active_requests"] == 0)

        data = data_of(measured.get(METRICS))
        assert data.keys() == {"current", "history_size", "server_health"}
        assert data["server_health"] is True
        found = data["current"]
        assert {name: type(value) for name, value in found.items()} == CURRENT
        assert (found["total_requests"], found["completed_requests"], found["failed_requests"]) == (5, 4, 1)
        assert (found["cache_hits"], found["cache_misses"]) == (3, 1)
        assert found["memory_usage_bytes"] > 0
        assert found["throughput_tokens_per_sec"] > 0
        assert 0 < found["min_latency_ms"] <= found["avg_latency_ms"] <= found["max_latency_ms"]

        assert samples(measured, "atlas_requests_total") == {
            frozenset({"route": "completion", "outcome": "ok", "atlas": "yes"}.items()): 3.0,
            frozenset({"route": "completion", "outcome": "ok", "atlas": "no"}.items()): 1.0,
            frozenset({"route": "completion", "outcome": "error", "atlas": "yes"}.items()): 1.0,
        }
        assert total(measured, "atlas_answer_tokens_total") == 4 * ANSWER
        assert total(measured, "atlas_prompt_tokens_total") == 4 * len(PROMPT)
        assert total(measured, "atlas_request_seconds_count") == 4
        assert total(measured, "atlas_pool_leases_total") == 4
        assert samples(measured, "atlas_pool_wait_seconds_count") == {frozenset({("for", "contexts")}): 3.0}

    def test_those_under_way_and_those_that_left(self, measured: Server) -> None:
        with endless(measured):
            assert current(measured)["active_requests"] == 1
            assert total(measured, "atlas_requests_in_progress") == 1
        measured.wait_until(lambda: current(measured)["active_requests"] == 0)
        found = current(measured)
        assert (found["total_requests"], found["completed_requests"], found["failed_requests"]) == (1, 0, 0)
        assert total(measured, "atlas_requests_total", outcome="cancelled") == 1

    def test_history(self, measured: Server) -> None:
        assert configure(measured, metrics_history_size=5).status_code == 200
        measured.wait_until(lambda: data_of(measured.get(METRICS))["history_size"] == 5)
        history = data_of(measured.get(METRICS, params={"history": 1}))["history"]
        assert len(history) == 5
        assert all(entry.keys() == CURRENT.keys() | {"timestamp"} for entry in history)


class TestPrometheus:
    def test_both_formats_are_whole(self, measured: Server) -> None:
        assert complete(measured).status_code == 200
        text = measured.get(PROMETHEUS)
        assert text.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
        openmetrics = measured.get(PROMETHEUS, headers=accept)
        kind = openmetrics.headers["Content-Type"]
        assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        names = {family.name for family in parse_text(text.text)}
        parsed = parse_openmetrics(openmetrics.text)  # type: ignore[no-untyped-call]
        assert names == {family.name for family in parsed}
        assert all(name.startswith("atlas_") for name in names)
        assert {"atlas_requests", "atlas_hook_calls", "atlas_time_to_first_token_seconds"} <= names

    def test_behind_llama_servers_own(self, start_server: StartServer) -> None:
        """Whoever scrapes /metrics already gets ours there, too, and its own as before."""
        server = start_server(["--metrics"])
        assert complete(server).status_code == 200
        both = server.get("/metrics")
        assert both.headers["Content-Type"] == "text/plain; version=0.0.4"
        names = {family.name for family in parse_text(both.text)}
        ours = {family.name for family in parse_text(server.get(PROMETHEUS).text)}
        own = {"llamacpp:prompt_tokens", "llamacpp:tokens_predicted", "llamacpp:requests_processing"}
        assert own <= names
        assert {name for name in names if name.startswith("atlas_")} == ours
        counted = [one for family in parse_text(both.text) for one in family.samples]
        assert [one.value for one in counted if one.name == "llamacpp:tokens_predicted_total"] == [ANSWER]

    def test_while_the_server_sleeps(self, start_server: StartServer) -> None:
        """As stock has them: what was so before, so that nobody takes the sleep for work."""
        server = start_server(["--metrics", "--sleep-idle-seconds", "1"])

        def sleeping_metrics() -> str:
            server.wait_until(lambda: server.get("/props").json()["is_sleeping"])
            return server.get("/metrics").text

        def told_requests(text: str) -> float:
            counted = [one for family in parse_text(text) for one in family.samples]
            return sum(one.value for one in counted if one.name == "atlas_requests_total")

        assert complete(server).status_code == 200
        awake = [server.get("/metrics").text for _ in range(2)][-1]
        assert told_requests(awake) == 1
        assert sleeping_metrics() == awake
        assert server.get(PROMETHEUS).text not in awake

        # nobody was told of this one before
        assert complete(server).status_code == 200
        asleep = [sleeping_metrics() for _ in range(2)][-1]
        assert told_requests(asleep) == 2
        assert sleeping_metrics() == asleep

    def test_llama_servers_own_alone(self, start_server: StartServer) -> None:
        """As stock has them: off by default, and without ours where nothing is collected."""
        assert start_server().get("/metrics").status_code == 501
        server = start_server(["--metrics", "--no-atlas-metrics"])
        assert "llamacpp:" in server.get("/metrics").text
        assert "atlas_" not in server.get("/metrics").text


class TestStream:
    def test_events_follow_the_load(self, measured: Server) -> None:
        with measured.client.stream("GET", STREAM) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            arriving = events(answer.iter_lines())
            numbers = [next(arriving)[0] for _ in range(3)]
            assert complete(measured).status_code == 200
            number, data = next(found for found in arriving if found[1]["total_requests"] == 1)
        assert numbers == sorted(set(numbers))
        assert number > numbers[-1]
        assert {"timestamp", "active_requests", "avg_latency"} <= data.keys()
        assert data["avg_latency"] > 0
        assert data["tokens_per_second"] > 0

    def test_clients_that_leave_are_forgotten(self, measured: Server) -> None:
        with measured.client.stream("GET", STREAM, params={"interval": 3_600_000}) as answer:
            arriving = events(answer.iter_lines())  # kept: the connection would be closed with it
            assert next(arriving)
            assert total(measured, "atlas_metrics_subscribers") == 1
        measured.wait_until(lambda: total(measured, "atlas_metrics_subscribers") == 0)

    def test_a_hundred_at_once(self, measured: Server) -> None:
        with ExitStack() as stack:
            followers: list[Iterator[tuple[int, dict[str, Any]]]] = []
            numbers: list[list[int]] = []
            for _ in range(SUBSCRIBERS):
                answer = stack.enter_context(measured.client.stream("GET", STREAM, params={"interval": 200}))
                followers.append(events(answer.iter_lines()))
                numbers.append([next(followers[-1])[0]])
            assert total(measured, "atlas_metrics_subscribers") == SUBSCRIBERS
            assert complete(measured).status_code == 200
            for mine, arriving in zip(numbers, followers, strict=True):
                mine.extend(next(arriving)[0] for _ in range(3))
        assert all(mine == sorted(set(mine)) for mine in numbers)
        measured.wait_until(lambda: total(measured, "atlas_metrics_subscribers") == 0)

    def test_a_burst_of_them(self, measured: Server) -> None:
        """Connections that come together: each gets a thread, as no other ever ends."""
        head = f"GET {STREAM}?interval=3600000 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        with ExitStack() as stack:
            connections = [
                stack.enter_context(socket.create_connection(("127.0.0.1", measured.port), timeout=30))
                for _ in range(SUBSCRIBERS)
            ]
            for connection in connections:
                connection.sendall(head)
            for connection in connections:
                arrived = b""
                while b"data: {" not in arrived:
                    arrived += connection.recv(65536)

    def test_the_servers_end_is_theirs(self, measured: Server) -> None:
        with ExitStack() as stack:
            lines = []
            for _ in range(10):
                answer = stack.enter_context(
                    measured.client.stream("GET", STREAM, params={"interval": 3_600_000})
                )
                lines.append(answer.iter_lines())
                assert next(events(lines[-1]))
            measured.signal(signal.SIGTERM)
            assert [line for rest in lines for line in rest if line] == []
        assert measured.wait() == 0


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{METRICS}?history=2", "Validation error in field 'history': value must be 0 or 1"),
        (
            f"{STREAM}?interval=9",
            "Validation error in field 'interval': value must be an integer between 10 and 3600000",
        ),
    ],
)
def test_bad_parameters(server: Server, path: str, message: str) -> None:
    assert message_of(server.get(path), 400) == message


@pytest.mark.parametrize("path", [METRICS, STREAM, PROMETHEUS])
def test_the_key_is_needed(start_server: StartServer, path: str) -> None:
    server = start_server(api_key="secret")
    assert httpx.get(server.url + path).status_code == 401
    with server.client.stream("GET", path) as answer:
        assert answer.status_code == 200


def test_collection_that_is_off(start_server: StartServer) -> None:
    server = start_server(["--no-atlas-metrics"])
    for path in (METRICS, STREAM, PROMETHEUS):
        assert "--atlas-metrics" in message_of(server.get(path), 503)
