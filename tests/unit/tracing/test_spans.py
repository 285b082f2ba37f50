"""What becomes of the record of a request."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from atlas_plugin.tracing.spans import write_spans
from tests.unit.tracing.making import ENDED, record

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

Write = Callable[..., dict[str, ReadableSpan]]


@pytest.fixture
def write() -> Write:
    """Write the spans of one record; they come by their names, the request's under "request"."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def written(model: str | None = "demo", **fields: Any) -> dict[str, ReadableSpan]:
        exporter.clear()
        n_spans = write_spans(provider.get_tracer("test"), record(**fields), model)
        spans = exporter.get_finished_spans()
        assert n_spans == len(spans)
        return {"request" if span.kind is SpanKind.SERVER else span.name: span for span in spans}

    return written


def times(span: ReadableSpan) -> tuple[float, float]:
    """Begin and end, in milliseconds before the end of the request."""
    assert span.start_time is not None and span.end_time is not None
    assert span.start_time <= span.end_time
    ended = int(ENDED * 1e9)
    return (ended - span.start_time) / 1e6, (ended - span.end_time) / 1e6


def test_phases_are_counted_back_from_the_first_token(write: Write) -> None:
    spans = write()
    assert {name: times(span) for name, span in spans.items()} == {
        "request": (100, 0),
        "queue": (96, 73),
        "restore": (73, 68),
        "prefill": (68, 38),
        "decode": (38, 1),
    }
    request = spans.pop("request")
    assert request.parent is None
    for span in spans.values():
        assert span.parent == request.context


@pytest.mark.parametrize(
    ("ms", "phases"),
    [
        ({"first_token": None}, set()),
        ({"prefill": None}, {"decode"}),
        ({"queue": None}, {"restore", "prefill", "decode"}),
        ({"decode": None}, {"queue", "restore", "prefill"}),
        ({"restore": None, "wait": None}, {"queue", "prefill", "decode"}),
        ({"restore": 0.0}, {"queue", "prefill", "decode"}),
        (dict.fromkeys(("overhead", "wait", "queue", "restore", "prefill", "first_token", "decode")), set()),
    ],
)
def test_phases_that_are_not_known_are_left_out(
    write: Write, ms: dict[str, float | None], phases: set[str]
) -> None:
    assert write(ms=ms).keys() == {"request"} | phases


def test_nothing_lies_outside_of_the_request(write: Write) -> None:
    for ms in ({"queue": 1000.0}, {"restore": 500.0}, {"prefill": 500.0}, {"decode": 500.0}, {"total": 1.0}):
        spans = write(ms=ms)
        began, ended = times(spans["request"])
        assert all(began >= max(times(span)) and min(times(span)) >= ended for span in spans.values()), ms


def test_attributes(write: Write) -> None:
    request = write()["request"]
    assert request.name == "chat demo"
    assert request.status.status_code is StatusCode.UNSET
    assert dict(request.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llama.cpp",
        "gen_ai.request.model": "demo",
        "gen_ai.response.model": "demo",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.062,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "atlas.request_id": "0000000000000001",
        "atlas.route": "chat",
        "atlas.outcome": "ok",
        "atlas.asked": True,
        "atlas.session_hash": "a1b2c3d4e5f6",
        "atlas.reused_tokens": 8,
        "atlas.memory.result": "restored",
        "atlas.memory.layer": 1,
        "atlas.overhead_ms": 0.5,
        "atlas.wait_ms": 8.0,
    }


def test_what_is_not_known_is_no_attribute(write: Write) -> None:
    unknown = {"memory": {"result": "", "layer": 0}, "session": "", "streamed": False}
    request = write(None, **unknown)["request"]
    assert request.name == "chat"
    absent = {"gen_ai.request.model", "atlas.session_hash", "atlas.memory.result", "atlas.degraded"}
    assert not absent & set(request.attributes or {})
    assert "gen_ai.response.time_to_first_chunk" not in (request.attributes or {})


@pytest.mark.parametrize(
    ("route", "operation"),
    [
        ("chat", "chat"),
        ("responses", "chat"),
        ("messages", "chat"),
        ("completions", "text_completion"),
        ("completion", "text_completion"),
        ("infill", "text_completion"),
    ],
)
def test_operations(write: Write, route: str, operation: str) -> None:
    assert write(route=route)["request"].name == f"{operation} demo"


@pytest.mark.parametrize("outcome", ["error", "refused", "cancelled"])
def test_outcomes(write: Write, outcome: str) -> None:
    request = write(outcome=outcome)["request"]
    failed = outcome != "cancelled"
    assert request.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
    assert (request.attributes or {}).get("error.type") == (outcome if failed else None)
    assert (request.attributes or {})["atlas.outcome"] == outcome


def test_a_parent(write: Write) -> None:
    for span in write(traceparent=f"00-{TRACE}-{PARENT}-01").values():
        assert f"{span.context.trace_id:032x}" == TRACE
        assert span.parent is not None
        assert (f"{span.parent.span_id:016x}" == PARENT) is (span.kind is SpanKind.SERVER)


def test_a_parent_that_is_not_sampled(write: Write) -> None:
    assert write(traceparent=f"00-{TRACE}-{PARENT}-00") == {}
