"""One small completion on each of the completion routes, and the `atlas` object of its answer."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from tests.server.harness import Server, stream_events

TEXT = "My name is Ada. What is my name?"
MESSAGES = [{"role": "user", "content": TEXT}]
BODIES: dict[str, dict[str, Any]] = {
    "/completion": {"prompt": TEXT, "n_predict": 4},
    "/completions": {"prompt": TEXT, "n_predict": 4},
    "/v1/completions": {"prompt": TEXT, "max_tokens": 4},
    "/chat/completions": {"messages": MESSAGES, "max_tokens": 4},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 4},
    "/responses": {"input": TEXT, "max_output_tokens": 4},
    "/v1/responses": {"input": TEXT, "max_output_tokens": 4},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 4},
}
ROUTES = list(BODIES)
REQUEST = {
    "session_id": "ada:1.2_3-4",
    "memory_layers": 3,
    "cache_strategy": "lru",
    "batch_size": 8,
    "history": "client",
}

# What `endless` needs.
ENDLESS_OPTIONS = ["--context-shift"]


def found(value: Any, key: str) -> Iterator[Any]:
    """What stands under `key`, wherever in `value`."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key:
                yield item
            else:
                yield from found(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from found(item, key)


def only_atlas(documents: Any) -> dict[str, Any]:
    """The one `atlas` object."""
    objects = list(found(documents, "atlas"))
    assert len(objects) == 1, documents
    atlas: dict[str, Any] = objects[0]
    return atlas


def complete(server: Server, path: str, **fields: Any) -> Any:
    """The answer's JSON: the document, or the list of a stream's."""
    response = server.post(path, {**BODIES[path], **fields})
    assert response.status_code == 200, response.text
    return stream_events(response.text) if fields.get("stream") else response.json()


@contextmanager
def endless(server: Server, path: str = "/completion", **fields: Any) -> Iterator[Iterator[str]]:
    """A completion that holds its slots until the block ends and its client leaves; its stream's lines."""
    body = {**BODIES[path], "n_predict": -1, "max_tokens": -1, "ignore_eos": True, "stream": True, **fields}
    with server.client.stream("POST", path, json=body) as running:
        lines = running.iter_lines()
        assert next(lines).startswith("data: ")
        yield lines


class Leaving:
    """A client of a completion that reads nothing of its answer, and leaves; as a context, at its end.

    `headers` are lines that end with CRLF; `behind` is sent after the request.
    """

    def __init__(
        self, server: Server, body: Any, headers: str = "", behind: bytes = b"", path: str = "/completion"
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        text = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {len(text)}\r\n\r\n"
        self._socket.sendall(head.encode() + text + behind)

    def leave(self, *_: object) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    __exit__ = leave
