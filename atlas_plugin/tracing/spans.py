"""The spans of one request, by OpenTelemetry's conventions for generative AI."""

from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

PROVIDER = "llama.cpp"

_CHATS = {"chat", "responses", "messages"}
_FAILED = {"error", "refused"}
_PARENT = TraceContextTextMapPropagator()


def write_spans(tracer: Tracer, record: Mapping[str, Any], model: str | None) -> int:
    """Write the spans of a record of `Host.requests`; how many: none when the trace is not sampled.

    The first is that of the request, a child of the client's where it sent one; its children are the phases.
    """
    ms = record["ms"]
    total_ms = ms["total"] or 0.0
    ended_ns = int(record["ended"] * 1e9)
    began_ns = ended_ns - _ns(total_ms)
    operation = "chat" if record["route"] in _CHATS else "text_completion"
    request = tracer.start_span(
        f"{operation} {model}" if model else operation,
        _PARENT.extract({"traceparent": record["traceparent"]}, Context()),
        SpanKind.SERVER,
        _attributes(record, operation, model),
        start_time=began_ns,
    )
    written = 0
    if request.is_recording():
        if record["outcome"] in _FAILED:
            request.set_status(Status(StatusCode.ERROR))
        parent = trace.set_span_in_context(request, Context())
        for phase, begun_ms, until_ms in _phases(ms):
            # The figures have clock readings of their own: sums may lie a little outside of the request.
            until_ns = began_ns + _ns(min(max(until_ms, 0.0), total_ms))
            begun_ns = min(began_ns + _ns(max(begun_ms, 0.0)), until_ns)
            tracer.start_span(phase, parent, start_time=begun_ns).end(until_ns)
            written += 1
        written += 1
    request.end(ended_ns)
    return written


def _attributes(record: Mapping[str, Any], operation: str, model: str | None) -> dict[str, Any]:
    ms, tokens, memory = record["ms"], record["tokens"], record["memory"]
    first_token_s = ms["first_token"] and ms["first_token"] / 1000
    attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.request.stream": record["streamed"],
        "gen_ai.usage.input_tokens": tokens["prompt"],
        "gen_ai.usage.output_tokens": tokens["answer"],
        "gen_ai.usage.cache_read.input_tokens": tokens["reused"],
        "gen_ai.response.time_to_first_chunk": first_token_s if record["streamed"] else None,
        "error.type": record["outcome"] if record["outcome"] in _FAILED else None,
        "atlas.request_id": record["request_id"],
        "atlas.route": record["route"],
        "atlas.outcome": record["outcome"],
        "atlas.asked": record["atlas"],
        "atlas.session_hash": record["session"],
        "atlas.reused_tokens": tokens["reused"],
        "atlas.memory.result": memory["result"],
        "atlas.memory.layer": memory["layer"],
        "atlas.degraded": record["degraded"],
        "atlas.overhead_ms": ms["overhead"],
        "atlas.wait_ms": ms["wait"],
    }
    return {name: value for name, value in attributes.items() if value not in (None, "")}


def _phases(ms: Mapping[str, float | None]) -> Iterator[tuple[str, float, float]]:
    """Name, begin and end of each phase, in milliseconds since the request began.

    What is known are durations, and when the first token was there: the others are counted back from it.
    """
    first_token, prefill, queue, decode = (ms[name] for name in ("first_token", "prefill", "queue", "decode"))
    if first_token is None:
        return
    if prefill is not None:
        slot_starts = first_token - prefill
        queue_ends = slot_starts - (ms["restore"] or 0.0)
        if queue is not None:
            yield "queue", queue_ends - queue - (ms["wait"] or 0.0), queue_ends
        if queue_ends < slot_starts:
            yield "restore", queue_ends, slot_starts
        yield "prefill", slot_starts, first_token
    if decode is not None:
        yield "decode", first_token, first_token + decode


def _ns(milliseconds: float) -> int:
    return int(milliseconds * 1e6)
