"""GET /v1/atlas/requests: the completion requests that ended last, each for its own tenant and the admin."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from atlas_plugin.errors import ValidationError
from atlas_plugin.hookspecs import hookimpl
from atlas_plugin.host.host import Host
from atlas_plugin.http import Request
from atlas_plugin.openapi import Success
from atlas_plugin.routing import Routes

_HIDDEN = {"traceparent", "session_id", "tenant"}
# What a double of JavaScript holds exactly.
_MAX_NUMBER = 2**53


class Milliseconds(TypedDict):
    """Null where not known: `wait` is for a turn and contexts, `queue` then until a slot starts on it."""

    total: float | None
    overhead: float | None
    wait: float | None
    queue: float | None
    restore: float | None
    prefill: float | None
    first_token: float | None
    decode: float | None


class Tokens(TypedDict):
    """Of the prompt, how many of these were reused, and of the answer."""

    prompt: int
    reused: int
    answer: int


class Found(TypedDict):
    """How the prompt fared with the memory, as `atlas_restores_total` counts it; empty: it was not asked."""

    result: str
    layer: int
    moved: Annotated[str, Meta(description="what moved, so that all behind it was computed; or empty")]


class RequestRecord(TypedDict):
    """A completion request that ended; `ended` is in seconds since 1970."""

    number: int
    request_id: str
    route: str
    outcome: Literal["ok", "error", "refused", "cancelled"]
    atlas: bool
    session: Annotated[str, Meta(description="the start of a hash of the session's id; empty: none")]
    ended: float
    streamed: bool
    ms: Milliseconds
    tokens: Tokens
    memory: Found
    degraded: Annotated[str, Meta(description="why it went on without what it asked for; else empty")]
    tenant: NotRequired[Annotated[str, Meta(description="whose it was, for the admin")]]


class Requests(TypedDict):
    """The number of the newest of all, and those that ended after `since`, oldest first."""

    last: int
    requests: list[RequestRecord]


class RequestsPlugin:
    """The last requests, out of the server's own record of them."""

    @hookimpl
    def startup(self, host: Host) -> None:
        self._host = host

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        routes.get(
            "/v1/atlas/requests",
            summary="The completion requests that ended after number ?since=, of the last 1,024",
            answer=Success[Requests],
            errors=(ValidationError,),
        )(self._list)

    def _list(self, request: Request) -> dict[str, Any]:
        since = _number(request.query.get("since", "0"))
        newest, records = self._host.requests(since)
        found = records
        # Not beyond what was the newest: more may end all the time.
        while records and records[-1]["number"] < newest:
            _, records = self._host.requests(records[-1]["number"])
            found = found + records
        shown = [_shown(one, request) for one in found if request.is_admin or one["tenant"] == request.tenant]
        last = max(newest, found[-1]["number"]) if found else newest
        return {"status": "success", "data": {"last": last, "requests": shown}}


def _number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 16 else -1
    if not 0 <= number <= _MAX_NUMBER:
        raise ValidationError(f"value must be a whole number from 0 to {_MAX_NUMBER}", "since")
    return number


def _shown(record: dict[str, Any], request: Request) -> dict[str, Any]:
    hidden = {"traceparent", "session_id"} if request.is_admin and record["tenant"] else _HIDDEN
    return {name: value for name, value in record.items() if name not in hidden}
