"""Records of requests as a server might answer them."""

from typing import Any

PHASES = {
    "total": 100.0,
    "overhead": 0.5,
    "wait": 8.0,
    "queue": 15.0,
    "restore": 5.0,
    "prefill": 30.0,
    "first_token": 62.0,
    "decode": 37.0,
}
ENDED = 1764000000.25


def record(number: int = 1, **fields: Any) -> dict[str, Any]:
    """A request that ended ok, with these fields in place of its own; those of `ms` one by one."""
    ms = {**PHASES, **fields.pop("ms", {})}
    return {
        "number": number,
        "request_id": f"{number:016x}",
        "route": "chat",
        "outcome": "ok",
        "atlas": True,
        "tenant": "0123456789abcdef",
        "session": "a1b2c3d4e5f6",
        "session_id": "",
        "traceparent": "",
        "ended": ENDED,
        "streamed": True,
        "tokens": {"prompt": 12, "reused": 8, "answer": 4},
        "memory": {"result": "restored", "layer": 1, "moved": ""},
        "degraded": "",
        "ms": ms,
        **fields,
    }
