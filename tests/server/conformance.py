"""The examples of ATLAS's specification, and the form of what answers them."""

import time
from typing import Any

import httpx

from tests.server.harness import Server

CHAT: dict[str, Any] = {
    "model": "your-model",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello, how are you?"},
    ],
    "temperature": 0.7,
    "max_tokens": 150,
    "atlas": {
        "memory_layers": 3,
        "cache_strategy": "adaptive",
        "session_id": "unique-session-id",
        "batch_size": 8,
    },
}
COMPLETION: dict[str, Any] = {
    "model": "your-model",
    "prompt": "The capital of France is",
    "max_tokens": 50,
    "temperature": 0.7,
    "atlas": {"memory_layers": 2, "session_id": "completion-session"},
}
CONTEXT_ID = "user123_conversation"
STATE = {
    "conversation_history": [{"role": "user", "content": "Hello!"}],
    "user_preferences": {"language": "en"},
    "context_memory": {"topics": ["weather"]},
}
ERROR_TYPES = {
    400: "validation_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable",
}


def data_of(answer: httpx.Response) -> dict[str, Any]:
    """The data of a successful answer under /v1/atlas."""
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["status"] == "success"
    data: dict[str, Any] = document["data"]
    return data


def message_of(answer: httpx.Response, status: int) -> str:
    """The message of an error, which has every documented field."""
    assert answer.status_code == status, answer.text
    document = answer.json()
    assert document.keys() == {"error"}
    error = document["error"]
    assert error.keys() == {"code", "message", "type", "timestamp"}
    assert (error["code"], error["type"]) == (status, ERROR_TYPES[status])
    assert type(error["timestamp"]) is int
    assert abs(error["timestamp"] - time.time()) < 60
    message: str = error["message"]
    return message


def operate(server: Server, operation: str, body: dict[str, Any]) -> httpx.Response:
    return server.post(f"/v1/atlas/memory/{operation}", body)


def configured(server: Server) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in data_of(server.get("/v1/atlas/config"))["settings"]}


def configure(server: Server, **settings: Any) -> httpx.Response:
    return server.post("/v1/atlas/config", {"settings": settings})


def pool(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/v1/atlas/status").json()["data"]["pool"]
    return found
