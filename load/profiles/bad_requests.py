"""Requests with mistakes in them. Each has to get the error that is documented, with all its fields."""

from typing import NamedTuple

from locust import task

from load.profiles.answers import ATLAS_ERROR, STOCK_ERROR, Reader, error_reader
from load.profiles.user import CHAT, LlamaUser


class BadRequest(NamedTuple):
    """A request by name, path and body, and the status and type of the error that answers it."""

    name: str
    path: str
    body: str
    status: int
    kind: str


MESSAGES = '"messages": [{"role": "user", "content": "Hello!"}]'
SAVE, LOAD = "/v1/atlas/memory/save", "/v1/atlas/memory/load"

HALF = '{"messages": ['
BOTH = (
    BadRequest("no messages", CHAT, "{}", 400, "invalid_request_error"),
    BadRequest("messages of a wrong type", CHAT, '{"messages": 7}', 400, "invalid_request_error"),
    BadRequest("no prompt", "/completion", "{}", 400, "invalid_request_error"),
    BadRequest("no such route", "/v1/nothing", "{}", 404, "not_found_error"),
)
ATLAS = (
    BadRequest(
        "layers out of range",
        CHAT,
        f'{{{MESSAGES}, "atlas": {{"memory_layers": 11}}}}',
        400,
        "validation_error",
    ),
    BadRequest(
        "bad session id", CHAT, f'{{{MESSAGES}, "atlas": {{"session_id": "../a"}}}}', 400, "validation_error"
    ),
    BadRequest("atlas of a wrong type", CHAT, f'{{{MESSAGES}, "atlas": 7}}', 400, "validation_error"),
    BadRequest("half a context", SAVE, '{"context_id": "a', 400, "validation_error"),
    BadRequest("context without a name", SAVE, '{"state": {}}', 400, "validation_error"),
    BadRequest("bad context id", LOAD, '{"context_id": "../a"}', 400, "validation_error"),
    BadRequest("no such ATLAS route", "/v1/atlas/nothing", "{}", 404, "not_found"),
)


def answered(fields: set[str], *requests: BadRequest) -> list[tuple[BadRequest, Reader[None]]]:
    """Requests with what reads their answers, which have these fields."""
    return [(bad, error_reader(bad.status, bad.kind, fields)) for bad in requests]


# Upstream calls what is no JSON a fault of its own.
STOCK_CASES = answered(STOCK_ERROR, *BOTH, BadRequest("half a body", CHAT, HALF, 500, "server_error"))
ATLAS_CASES = [
    *answered(STOCK_ERROR, *BOTH, BadRequest("half a body", CHAT, HALF, 400, "invalid_request_error")),
    *answered(ATLAS_ERROR, *ATLAS),
]


class BadRequestUser(LlamaUser):
    """Makes mistakes, on stock only those that stock knows."""

    profile = "bad-requests"

    @task
    def ask(self) -> None:
        bad, read = self.random.choice(STOCK_CASES if self.atlas is None else ATLAS_CASES)
        self.call(
            "POST",
            bad.path,
            read,
            name=f"bad: {bad.name}",
            content=bad.body,
            headers={"Content-Type": "application/json"},
        )
