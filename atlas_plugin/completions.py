"""What plugins are told of a completion request on its way, and what they may answer. Pure: any thread."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atlas_plugin.http import Headers, Response

Json = Any
"""What `json.loads` gives."""


@dataclass(frozen=True)
class CompletionRequest:
    """A completion request, the same for all its hooks."""

    route: str
    """Its path, such as `/v1/chat/completions`, without the server's --api-prefix."""
    request_id: str
    """The client's X-Request-Id, else made for it."""
    tenant: str = ""
    """Whose API key it came with: 16 hexadecimal digits; empty where all see the same, and for the admin."""
    is_admin: bool = False
    """May do all; so may everybody where no admin's key is set."""
    name: str = ""
    """That of the `Identity` that a plugin gave it in `authenticate`; empty: none did."""
    session_id: str | None = None
    """The session that it names."""
    is_streamed: bool = False
    """Whether the client asked for the answer piece by piece."""
    headers: Headers = field(default_factory=lambda: Headers(()), repr=False)
    state: dict[str, Any] = field(default_factory=dict, repr=False)
    """For plugins, from the request's first hook to its last; use your plugin's name as a key."""


@dataclass(frozen=True)
class Caller:
    """Who sends a request to any route, before it is known who that is."""

    key: str = field(repr=False)
    """Of the header Authorization, without `Bearer `, or of X-Api-Key; empty: there is none."""
    method: str
    path: str
    headers: Headers = field(repr=False)


@dataclass(frozen=True)
class Identity:
    """Whose a request is. Each name has sessions, memory and limits of its own, whatever the key."""

    name: str
    """Not empty; it may hold anything, as it is hashed."""
    is_admin: bool = False
    """May see what all have, and change settings."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"the name {self.name!r} is no text, or is empty")


@dataclass(frozen=True)
class StreamChunk:
    """The next events of a streamed answer, in order."""

    events: tuple[dict[str, Any], ...]
    """Each as the client would get it; of /v1/responses and /v1/messages with `event` and `data`."""
    is_last: bool
    """Whether nothing follows; then `events` may be empty."""


@dataclass(frozen=True)
class Pass:
    """Nothing to say. None means the same."""


@dataclass(frozen=True)
class Modify:
    """Go on with this instead: a body, a prompt, an answer, or the events of a chunk."""

    value: Json


@dataclass(frozen=True)
class Reject:
    """Refuse the request. The client gets `message`, so it must hold no secrets.

    `headers` are the answer's, as `Retry-After` in seconds with 429, or `WWW-Authenticate` with 401; a stream
    that has begun has none. Raises ValueError for a status that is none of an error, and for headers that are
    malformed or the server's own.
    """

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.status, int) or not 400 <= self.status <= 599:
            raise ValueError(f"status {self.status!r} is not within 400 to 599")
        if not isinstance(self.message, str):
            raise TypeError(f"message is {type(self.message).__name__}, not str")
        Response(status=self.status, headers=self.headers)


@dataclass(frozen=True)
class Respond:
    """Answer in the model's place, which is not asked; `answer` is the whole of it."""

    answer: Response


Verdict = Pass | Modify | Reject | Respond | None


def chunk_of(document: Mapping[str, Any]) -> StreamChunk:
    """The chunk that the server sends."""
    return StreamChunk(tuple(document["events"]), document["is_last"])
