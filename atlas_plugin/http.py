"""What a route handler gets and what it may return. Safe to share among threads."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from atlas_plugin import json_text
from atlas_plugin.errors import Forbidden, ValidationError

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# A plugin that set these could make the server and a proxy disagree about where the answer ends.
_OWNED_BY_SERVER = frozenset({"connection", "content-length", "content-type", "transfer-encoding"})


class Headers(Mapping[str, str]):
    """Request headers; names compare without case, a repeated header's values are joined by `, `."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        values: dict[str, str] = {}
        for name, value in pairs:
            key = name.lower()
            values[key] = f"{values[key]}, {value}" if key in values else value
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        # Values hold credentials, and a repr ends in logs.
        return f"Headers({', '.join(self._values)})"


def parse_query(query: str) -> dict[str, str]:
    """The parameters of a query string; of a repeated one the last counts."""
    return dict(parse_qsl(query, keep_blank_values=True))


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    `path` is decoded and starts with /v1/atlas; `path_params` are the parts that the route's pattern names.
    A HEAD request arrives as GET.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Headers = field(default_factory=Headers)
    body: bytes = field(default=b"", repr=False)
    path_params: Mapping[str, str] = field(default_factory=dict)
    tenant: str = ""
    """Whose API key it came with: 16 hexadecimal digits; empty where all see the same, and for the admin."""
    is_admin: bool = True
    """Whether it may see what all tenants have, and change settings."""

    def json(self) -> Any:
        """The body parsed as JSON. Raises ValidationError when it is not JSON."""
        try:
            return json_text.decode(self.body)
        except ValueError as error:
            raise ValidationError(f"not valid JSON: {error}", "body") from None

    def json_object(self) -> dict[str, Any]:
        """The body parsed as a JSON object. Raises ValidationError when it is anything else."""
        value = self.json()
        if not isinstance(value, dict):
            raise ValidationError("must be a JSON object", "body")
        return value


def require_admin(request: Request, what: str, needed: bool = True) -> None:
    """Raise Forbidden when it is needed, unless the request is an admin's; `what` completes "to …"."""
    if needed and not request.is_admin:
        raise Forbidden(f"to {what}, send the key of --atlas-admin-key or ATLAS_ADMIN_KEY")


@dataclass(frozen=True)
class Response:
    """An answer.

    `body` is bytes, text, or what msgspec serialises; once constructed it is bytes, and `content_type` is set
    by what it was. Raises ValueError for a status outside 200 to 599, a body with 204 or 304 and for headers
    that are malformed or the server's own; TypeError for a body that JSON cannot hold.
    """

    status: int = 200
    body: Any = field(default=b"", repr=False)
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_head(self.status, self.content_type, self.headers)
        body, default_type = _encode(self.body)
        if self.status in (204, 304):
            if body:
                raise ValueError(f"a response with status {self.status} cannot have a body")
        elif self.content_type is None:
            object.__setattr__(self, "content_type", default_type)
        object.__setattr__(self, "body", body)


@dataclass(frozen=True)
class StreamResponse:
    """An answer that is sent piece by piece, as `chunks` yields bytes or text (sent as UTF-8).

    Each piece is pulled on an HTTP thread, which the iterator may block. A generator's `close` is called when
    the client goes away or the server stops, so clean-up belongs in its `finally`. An exception ends the
    answer, which the client cannot tell from its proper end. Raises ValueError as Response does, and
    TypeError for `chunks` that are no iterable of pieces.
    """

    chunks: Iterable[bytes | str]
    content_type: str = "text/event-stream"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_head(self.status, self.content_type, self.headers)
        if isinstance(self.chunks, str | bytes) or not isinstance(self.chunks, Iterable):
            raise TypeError(f"chunks is {type(self.chunks).__name__}, not an iterable of bytes or str")


HandlerResult = Response | StreamResponse | dict[str, Any] | list[Any] | str | bytes | None


def to_response(result: HandlerResult) -> Response | StreamResponse:
    """The answer that a handler's result stands for: dict and list are JSON, str is text, None is 204."""
    if isinstance(result, Response | StreamResponse):
        return result
    if result is None:
        return Response(status=204)
    if isinstance(result, dict | list | str | bytes):
        return Response(body=result)
    allowed = "dict, list, str, bytes, None, Response or StreamResponse"
    raise TypeError(f"the handler returned {type(result).__name__}; return {allowed}")


def _encode(body: Any) -> tuple[bytes, str]:
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return json_text.encode_strictly(body), "application/json; charset=utf-8"


def _check_head(status: int, content_type: str | None, headers: Mapping[str, str]) -> None:
    if not 200 <= status <= 599:
        raise ValueError(f"status {status} is not within 200 to 599")
    for name, value in (("Content-Type", content_type or ""), *headers.items()):
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if _CONTROL.search(value):
            raise ValueError(f"the value of header {name} holds a control character: {value!r}")
    for name in headers:
        if name.lower() in _OWNED_BY_SERVER:
            hint = "use content_type" if name.lower() == "content-type" else "the server sets it"
            raise ValueError(f"header {name} cannot be set here: {hint}")
