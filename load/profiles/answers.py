"""What a user expects of an answer, and what it takes out of it.

A reader gets the open response and the time (`time.perf_counter`) at which its request was sent. For an
answer that is not the documented one it raises UnexpectedAnswerError, or what looking into such a document
raises: LookupError, TypeError, ValueError.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import httpx
import msgspec

T = TypeVar("T")
Reader = Callable[[httpx.Response, float], T]

STOCK_ERROR = {"code", "message", "type"}
ATLAS_ERROR = STOCK_ERROR | {"timestamp"}
REFUSALS = {429: "rate_limit_error", 503: "service_unavailable"}


class UnexpectedAnswerError(Exception):
    """An answer is not the documented one. Locust groups failures by the message, which names no numbers."""


@dataclass(frozen=True)
class Stream:
    """A streamed chat completion: its text, and the times of its pieces in ms."""

    text: str
    first_token_ms: float | None
    gaps_ms: list[float]
    last: dict[str, Any]


def read_json(response: httpx.Response, _: float) -> dict[str, Any]:
    """The JSON object of an answer with status 200."""
    _expect_status(response, 200)
    document: dict[str, Any] = msgspec.json.decode(response.read())
    return document


def read_text(response: httpx.Response, _: float) -> str:
    """The text of an answer with status 200."""
    _expect_status(response, 200)
    response.read()
    return response.text


def read_stream(response: httpx.Response, sent: float) -> Stream:
    """A chat completion's event stream, which has to end as streams do."""
    _expect_status(response, 200)
    # parsed afterwards: parsing would delay the clock of the next piece
    timed = [(time.perf_counter(), data) for data in read_events(response)]
    if not timed or timed[-1][1] != "[DONE]":
        raise UnexpectedAnswerError("the stream ended before it was done")
    pieces: list[str] = []
    times: list[float] = []
    event: dict[str, Any] = {}
    for when, data in timed[:-1]:
        event = msgspec.json.decode(data)
        if "error" in event:
            raise UnexpectedAnswerError(f"the stream holds an error: {event['error'].get('type')}")
        for choice in event["choices"]:
            delta = choice["delta"]
            if piece := delta.get("content") or delta.get("reasoning_content"):
                pieces.append(piece)
                times.append(when)
    return Stream(
        text="".join(pieces),
        first_token_ms=(times[0] - sent) * 1e3 if times else None,
        gaps_ms=[(after - before) * 1e3 for before, after in pairwise(times)],
        last=event,
    )


def read_events(response: httpx.Response) -> Iterator[str]:
    """The data of server-sent events as they come."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


def error_reader(status: int, kind: str, fields: set[str]) -> Reader[None]:
    """A reader of an error with this status, type, and fields."""

    def read(response: httpx.Response, _: float) -> None:
        _expect_status(response, status)
        error = msgspec.json.decode(response.read())["error"]
        if error.keys() != fields:
            raise UnexpectedAnswerError(f"the error has the fields {', '.join(sorted(error))}")
        if (error["code"], error["type"]) != (status, kind):
            raise UnexpectedAnswerError(f"the error is {error['code']} {error['type']}, expected {kind}")

    return read


def retry_after_s(response: httpx.Response) -> int | None:
    """Seconds to wait, where the server refuses a request for now.

    Raises UnexpectedAnswerError for a refusal that is not the documented one.
    """
    kind = REFUSALS.get(response.status_code)
    if kind is None or "Retry-After" not in response.headers:
        return None
    error_reader(response.status_code, kind, ATLAS_ERROR)(response, 0.0)
    seconds: str = response.headers["Retry-After"]
    if not seconds.isdecimal() or int(seconds) < 1:
        raise UnexpectedAnswerError(f"Retry-After is '{seconds}', expected whole seconds from 1")
    return int(seconds)


def _expect_status(response: httpx.Response, status: int) -> None:
    if response.status_code == status:
        return
    response.read()
    raise UnexpectedAnswerError(f"status {response.status_code}, expected {status}: {response.text:.200}")
