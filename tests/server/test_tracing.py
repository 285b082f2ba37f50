"""Traces of requests, as a collector gets them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.collector import Collector, ReceivedSpan
from tests.server.completions import BODIES, ENDLESS_OPTIONS, endless
from tests.server.conftest import StartServer
from tests.server.harness import Server, free_port, write_plugin

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVER, ERROR = 2, 2
AT_ONCE = {"OTEL_BSP_SCHEDULE_DELAY": "20"}
AT_THE_END = {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}

MODULES = """
import sys
from atlas_plugin import hookimpl

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/modules")
    def modules(request):
        return [name for name in sys.modules if name.startswith("opentelemetry")]
"""


@pytest.fixture
def own_collector() -> Iterator[Collector]:
    """For the servers that a test starts."""
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """That of `traced`."""
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that sends its traces at once; each test uses request ids of its own."""
    directory = tmp_path_factory.mktemp("traced")
    options: list[str | Path] = ["--atlas-memory-path", directory / "memory", "-np", "1", *ENDLESS_OPTIONS]
    with Server(options, {**collector.environment, **AT_ONCE}, directory=directory) as running:
        yield running


def trace_of(server: Server, collector: Collector, request_id: str) -> ReceivedSpan:
    """The span of a request, once it has arrived with its children."""
    found: list[ReceivedSpan] = []

    def is_there() -> bool:
        found[:] = [
            span for span in list(collector.spans) if span.attributes.get("atlas.request_id") == request_id
        ]
        return bool(found)

    server.wait_until(is_there)
    (request,) = found
    assert request.kind == SERVER
    for span in collector.children(request).values():
        assert request.began <= span.began <= span.ended <= request.ended, span.name
    return request


def complete(server: Server, path: str, request_id: str, traceparent: str = "", **fields: Any) -> Any:
    headers = {"X-Request-Id": request_id} | ({"traceparent": traceparent} if traceparent else {})
    response = server.post(path, {**BODIES[path], **fields}, headers=headers)
    assert response.status_code == 200, response.text
    return response


def test_a_trace_of_its_own(traced: Server, collector: Collector) -> None:
    began = time.time_ns()
    answer = complete(traced, "/v1/chat/completions", "r1", atlas={"session_id": "somebody"}).json()
    ended = time.time_ns()
    request = trace_of(traced, collector, "r1")
    assert request.parent == ""
    # The request's end is set down to the microsecond.
    assert began <= request.began < request.ended <= ended + 1_000_000
    phases = collector.children(request)
    assert sorted(phases, key=lambda name: phases[name].began) == ["queue", "prefill", "decode"]
    assert phases["queue"].ended == pytest.approx(phases["prefill"].began, abs=1000)
    assert phases["prefill"].ended == pytest.approx(phases["decode"].began, abs=1000)
    assert phases["decode"].ended == pytest.approx(request.ended, abs=1_000_000)

    model = traced.get("/v1/atlas/status").json()["data"]["model"]
    assert request.name == f"chat {model}"
    assert request.resource["service.name"] == "llama-server"
    assert request.attributes["gen_ai.response.model"] == model
    assert request.attributes["gen_ai.usage.input_tokens"] == answer["usage"]["prompt_tokens"]
    assert request.attributes["gen_ai.usage.output_tokens"] == answer["usage"]["completion_tokens"]
    assert request.attributes["atlas.asked"] is True
    assert request.attributes["atlas.outcome"] == "ok"
    assert len(request.attributes["atlas.session_hash"]) == 12
    assert "somebody" not in repr(collector.spans)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", BODIES)
def test_the_parent_of_the_client(traced: Server, collector: Collector, path: str, stream: bool) -> None:
    request_id = f"child{path.replace('/', '-')}-{stream}"
    complete(traced, path, request_id, f"00-{TRACE}-{PARENT}-01", stream=stream)
    request = trace_of(traced, collector, request_id)
    assert (request.trace_id, request.parent) == (TRACE, PARENT)
    assert request.attributes["gen_ai.request.stream"] is stream
    phases = collector.children(request)
    assert {"queue", "prefill", "decode"} <= phases.keys()
    assert {span.trace_id for span in phases.values()} == {TRACE}


def test_a_parent_that_is_not_sampled(traced: Server, collector: Collector) -> None:
    complete(traced, "/completion", "unsampled", f"00-{TRACE}-{PARENT}-00")
    complete(traced, "/completion", "sampled", f"00-{TRACE}-{PARENT}-01")
    trace_of(traced, collector, "sampled")
    assert "unsampled" not in {span.attributes.get("atlas.request_id") for span in collector.spans}


def test_a_restore(traced: Server, collector: Collector) -> None:
    prompt = [3 + i % 200 for i in range(600)]
    for request_id, tokens in ("cold", prompt), ("other", [7] * 600), ("again", prompt):
        complete(traced, "/completion", request_id, prompt=tokens)
    request = trace_of(traced, collector, "again")
    phases = collector.children(request)
    assert sorted(phases, key=lambda name: phases[name].began) == ["queue", "restore", "prefill", "decode"]
    assert phases["restore"].began < phases["restore"].ended
    assert request.attributes["atlas.memory.result"] == "restored"
    assert request.attributes["atlas.memory.layer"] == 1
    assert request.attributes["atlas.reused_tokens"] > 512
    assert "restore" not in collector.children(trace_of(traced, collector, "cold"))


def test_requests_that_fail_and_that_are_left(traced: Server, collector: Collector) -> None:
    headers = {"X-Request-Id": "too-long"}
    assert traced.post("/completion", {"prompt": [5] * 100_000}, headers=headers).status_code == 400
    request = trace_of(traced, collector, "too-long")
    assert request.status == ERROR
    assert request.attributes["error.type"] == "error"
    assert collector.children(request) == {}

    with endless(traced):
        pass
    traced.wait_until(
        lambda: any(span.attributes.get("atlas.outcome") == "cancelled" for span in list(collector.spans))
    )


def test_a_server_without_a_collector_has_nothing_of_it(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(["--atlas-plugin", write_plugin(tmp_path, MODULES)])
    complete(server, "/completion", "r3")
    assert server.get("/v1/atlas/x/modules").json() == []
    assert "tracing" not in server.get("/v1/atlas/status").json()["data"]


def test_the_end_delivers_what_is_left(start_server: StartServer, own_collector: Collector) -> None:
    server = start_server((), {**own_collector.environment, **AT_THE_END})
    for number in range(3):
        complete(server, "/completion", f"r{number}")
    assert own_collector.spans == []
    assert server.stop() == 0
    ids = {span.attributes.get("atlas.request_id") for span in own_collector.spans}
    assert ids == {"r0", "r1", "r2", None}
    assert len(own_collector.spans) == 3 * 4


def test_a_collector_that_is_down(start_server: StartServer) -> None:
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    server = start_server((), {**nowhere, **AT_ONCE, "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2"})

    def undelivered() -> float:
        families = parse_text(server.get("/v1/atlas/metrics/prometheus").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "atlas_traces_lost_total" and sample.labels == {"reason": "undelivered"}
        )

    for number in range(2):
        complete(server, "/completion", f"r{number}")
        server.wait_until(lambda expected=number + 1: undelivered() == expected)
    assert server.logged("traces are not delivered: ")
    (problem,) = server.get("/v1/atlas/status").json()["problems"]
    assert problem.startswith("traces are not delivered: ")
    assert server.stop() == 0
    assert server.log.count("traces are not delivered: ") == 1
    assert "opentelemetry" not in server.log


def test_a_collector_that_hangs_does_not_hold_the_end_up(
    start_server: StartServer, own_collector: Collector
) -> None:
    own_collector.released.clear()
    server = start_server(["--atlas-shutdown-timeout", "1"], {**own_collector.environment, **AT_ONCE})
    complete(server, "/completion", "r4")
    server.wait_until(lambda: own_collector.requests > 0)
    complete(server, "/completion", "r5")
    assert server.stop() == 0
    assert server.logged("the last traces could not be delivered within 0.5 s and are lost")
    assert "the shutdown hooks did not end" not in server.log
