"""The plugin that sends traces, from a fake host to a collector."""

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from atlas_plugin import Response
from atlas_plugin.testing import Application, FakeHost
from tests.collector import Collector
from tests.unit.tracing.making import record

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]
Eventually = Callable[[Callable[[], object]], None]

PROBLEM = "there are no traces although OTEL_EXPORTER_OTLP_ENDPOINT is set: "


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, and the environment that names it."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    with Collector() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def status(call: Call) -> Callable[[Application], dict[str, Any]]:
    def asked(application: Application) -> dict[str, Any]:
        document: dict[str, Any] = msgspec.json.decode(call(application, "GET", "/v1/atlas/status").body)
        return document

    return asked


Status = Callable[[Application], dict[str, Any]]


def lost(application: Application) -> dict[str, float]:
    """`atlas_traces_lost_total` by reason."""
    (family,) = (one for one in application.plugins.metrics() if one.name == "atlas_traces_lost_total")
    return {sample.labels["reason"]: sample.number for sample in family.samples}


def test_requests_are_traced_as_they_end(
    collector: Collector, start: Start, status: Status, eventually: Eventually
) -> None:
    host = FakeHost()
    host.requests_ended = [record(1)]
    application = start(host)
    eventually(lambda: len(collector.spans) == 5)
    host.requests_ended += [record(2), record(3)]
    eventually(lambda: len(collector.spans) == 15)
    assert len({span.trace_id for span in collector.spans}) == 3
    eventually(
        lambda: status(application)["data"].get("tracing") == {"sent": 3, "missed": 0, "undelivered": 0}
    )
    assert status(application)["problems"] == []
    assert lost(application) == {"missed": 0, "undelivered": 0}


def test_the_service(collector: Collector, start: Start, eventually: Eventually) -> None:
    host = FakeHost()
    host.requests_ended = [record(1)]
    start(host)
    eventually(lambda: collector.spans)
    assert collector.spans[0].resource["service.name"] == "llama-server"


def test_the_environment_names_the_service(
    collector: Collector, start: Start, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "chatter")
    host = FakeHost()
    host.requests_ended = [record(1)]
    start(host)
    eventually(lambda: collector.spans)
    assert collector.spans[0].resource["service.name"] == "chatter"


def test_what_the_server_forgot_is_counted(
    collector: Collector, start: Start, eventually: Eventually
) -> None:
    host = FakeHost()
    host.requests_ended = [record(4), record(7)]
    application = start(host)
    eventually(lambda: len(collector.spans) == 10)
    assert lost(application) == {"missed": 5, "undelivered": 0}
    assert "3 requests are not traced: they ended too fast; more is only counted" in host.log_text


def test_the_end_delivers_what_is_left(
    collector: Collector, start: Start, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    host = FakeHost()
    application = start(host)
    host.requests_ended = [record(number) for number in range(1, 801)]
    application.stop()
    assert len(collector.spans) == 5 * 800


def test_a_collector_that_refuses(
    collector: Collector, start: Start, status: Status, eventually: Eventually
) -> None:
    collector.status = 400
    host = FakeHost()
    host.requests_ended = [record(1)]
    application = start(host)
    eventually(lambda: lost(application)["undelivered"] == 1)
    assert "Failed to export" in status(application)["problems"][0]
    host.requests_ended.append(record(2))
    eventually(lambda: lost(application)["undelivered"] == 2)
    assert host.log_text.count("traces are not delivered: ") == 1
    assert "opentelemetry" not in host.log_text
    collector.status = 200
    host.requests_ended.append(record(3))
    eventually(lambda: "traces are delivered again; 2 were lost so far" in host.log_text)
    assert status(application)["problems"] == []


def test_a_collector_that_hangs(collector: Collector, start: Start, eventually: Eventually) -> None:
    collector.released.clear()
    host = FakeHost(shutdown_timeout_s=0.2)
    host.requests_ended = [record(1)]
    application = start(host)
    eventually(lambda: collector.requests)
    application.stop()
    assert "the last traces could not be delivered within 0.1 s and are lost" in host.log_text


def test_no_more_is_read_than_the_collector_takes(
    collector: Collector, start: Start, eventually: Eventually
) -> None:
    collector.released.clear()
    host = FakeHost()
    host.requests_ended = [record(number) for number in range(1, 1025)]
    application = start(host)
    eventually(lambda: collector.requests)
    # As a server does that has seen many more requests since.
    host.requests_ended = [record(number) for number in range(2001, 2003)]
    collector.released.set()
    eventually(
        lambda: any(span.attributes["atlas.request_id"] == f"{2002:016x}" for span in requests(collector))
    )
    assert lost(application)["missed"] + len(requests(collector)) == 2002
    assert "Queue full" not in host.log_text


def requests(collector: Collector) -> list[Any]:
    return [span for span in list(collector.spans) if span.name.startswith("chat")]


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_switched_off(
    collector: Collector,
    start: Start,
    status: Status,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    application = start(FakeHost())
    assert "tracing" not in status(application)["data"]
    assert status(application)["status"] == "healthy"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("atlas-tracing")]
    assert lost(application) == {"missed": 0, "undelivered": 0}


def test_packages_that_are_missing(
    collector: Collector, start: Start, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    for module in ("delivery", "follower"):
        monkeypatch.delitem(sys.modules, f"atlas_plugin.tracing.{module}", raising=False)
    host = FakeHost()
    (problem,) = status(start(host))["problems"]
    assert problem.startswith(PROBLEM)
    assert f"; install the extra 'tracing' into {sys.prefix}: " in problem
    assert problem in host.log_text


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_another_protocol(
    collector: Collector, start: Start, status: Status, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "grpc")
    (problem,) = status(start(FakeHost()))["problems"]
    assert problem == (
        f"{PROBLEM}{variable} is 'grpc': only http/protobuf is spoken; set it to that, or unset it"
    )


def test_a_number_that_cannot_be(
    collector: Collector, start: Start, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    (problem,) = status(start(FakeHost()))["problems"]
    assert problem.startswith(PROBLEM)
    assert "max_queue_size must be a positive integer" in problem
