"""The HTTP example, which has ATLAS inside, answers as llama-server does.

What differs has to: paths that the program did not register, web pages of other sites, CORS and the header
`Server` are the program's own; streams that outlive their connection, files (slots, audio) and the web UI are
llama-server's; a setting of the program's has no command line that it came from.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.example import Example
from tests.server.harness import Server
from tests.server.test_stock_compatibility import BAD_BODIES, CASES, CHAT, LEGACY, Case, both, described, post

# Of test_stock_compatibility's.
PROGRAMS_OWN = {
    "root",
    "unknown",
    "unknown-post",
    "similar",
    "wrong-method",
    "put",
    "delete",
    "head-unknown",
    "cors",
    "cors-elsewhere",
    "cors-options",
}
NOT_SERVED = {"streams", "props-post", "slots-post"}
COMPARED_BY_SHAPE = {"metrics"}

SCHEMA = {"type": "object", "properties": {"name": {"enum": ["Ada", "Bob"]}}, "required": ["name"]}
SESSION = {"session_id": "conformance"}
STATE = {"context_id": "shelf", "state": {"likes": ["engines"], "count": 10**30}}

FURTHER = [
    *both("tokens", "/completion", {**LEGACY, "prompt": [5, 6, 7, 8]}),
    post(
        "chat-json-schema",
        "/v1/chat/completions",
        {**CHAT, "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
    ),
    *both("chat-stop", "/v1/chat/completions", {**CHAT, "stop": ["a"]}),
    Case("slots-left", "GET", "/slots?fail_on_no_slot=1"),
    post("wrong-type", "/v1/chat/completions", {**CHAT, "max_tokens": "many"}),
    *both("atlas", "/v1/chat/completions", {**CHAT, "atlas": SESSION}),
    *both("atlas-again", "/v1/chat/completions", {**CHAT, "atlas": SESSION}),
    *both("atlas-history", "/v1/chat/completions", {**CHAT, "atlas": {**SESSION, "history": "server"}}),
    *both("atlas-layers", "/completion", {**LEGACY, "atlas": {"memory_layers": 99}}),
    *both("atlas-no-object", "/completion", {**LEGACY, "atlas": 7}),
    *both("atlas-unknown", "/completion", {**LEGACY, "atlas": {"colour": "red"}}),
    *both("atlas-batch", "/completion", {**LEGACY, "n": 2, "atlas": {"batch_size": 1}}),
    post("save", "/v1/atlas/memory/save", STATE),
    post("load", "/v1/atlas/memory/load", {"context_id": "shelf"}),
    post("list", "/v1/atlas/memory/list", {"limit": 1}),
    post("delete-saved", "/v1/atlas/memory/delete", {"context_id": "shelf"}),
    post("load-deleted", "/v1/atlas/memory/load", {"context_id": "shelf"}),
    post("save-wrong", "/v1/atlas/memory/save", {"context_id": "../shelf", "state": {}}),
    post("pin-unknown", "/v1/atlas/memory/pin", {"session_id": "nobody"}),
    Case("save-no-json", "POST", "/v1/atlas/memory/save", content=b'{"context_id": '),
    Case("atlas-missing", "GET", "/v1/atlas/none"),
    Case("atlas-wrong-method", "DELETE", "/v1/atlas/status"),
    Case("atlas-plugins", "GET", "/v1/atlas/plugins"),
    Case("atlas-openapi", "GET", "/v1/atlas/openapi.json"),
    post("config-unknown", "/v1/atlas/config", {"settings": {"colour": "red"}}),
    post("config-too-large", "/v1/atlas/config", {"settings": {"max_concurrent_atlas_requests": -1}}),
    post("config-live", "/v1/atlas/config", {"settings": {"slow_request_ms": 5000}}),
]
SERVED = [
    case
    for case in [*CASES, *BAD_BODIES, *FURTHER]
    if case.name not in PROGRAMS_OWN | NOT_SERVED | COMPARED_BY_SHAPE
]
UNSERVED = [case for case in CASES if case.name in {"root", "unknown", "unknown-post", "put", *NOT_SERVED}]
ENDLESS = {"prompt": "Once upon a time", "n_predict": -1, "ignore_eos": True, "stream": True}

# Clocks and what is measured, beside what varies between two runs of stock.
MEASURED = {"overhead_ms", "restore_ms", "timestamp", "created", "updated", "last_used_at"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """The example and llama-server, which see the same requests in the same order."""
    with ExitStack() as stack:
        own, other = (tmp_path_factory.mktemp(name) for name in ("example", "server"))
        stock = Server(["--atlas-memory-path", other / "memory", "--metrics"], directory=other)
        embedded = Example(own, ["-np", "2", "-c", "4096", "--metrics"])
        yield stack.enter_context(embedded), stack.enter_context(stock)


@pytest.fixture
def example(pair: tuple[Server, Server]) -> Server:
    return pair[0]


def without_measures(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: type(item).__name__ if key in MEASURED else without_measures(item)
            for key, item in value.items()
        }
    return [without_measures(item) for item in value] if isinstance(value, list) else value


def comparable(response: httpx.Response) -> list[Any]:
    """Everything of an answer that has to be equal."""
    lines: list[Any] = [line for line in described(response) if not line.startswith("server: ")]
    return [without_measures(json.loads(line)) if line.startswith(("{", "[")) else line for line in lines]


def shape(value: Any) -> Any:
    """Keys, and in place of numbers and paths that there are any."""
    if isinstance(value, dict):
        paths = [key for key in ("path", "address") if value.get(key)]
        return {key: "path" if key in paths else shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value if not isinstance(item, int | float)]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else value


@pytest.mark.parametrize("case", SERVED, ids=lambda case: case.name)
def test_answers_are_the_servers(pair: tuple[Server, Server], case: Case) -> None:
    answer, expected = (comparable(case.send(server)) for server in pair)
    assert answer == expected


def events(server: Server, path: str, count: int) -> list[Any]:
    """The first documents of a stream of events, whose connection is closed then."""
    with server.client.stream("GET", path) as response:
        lines = (line for line in response.iter_lines() if line.startswith("data: "))
        return [json.loads(line.removeprefix("data: ")) for line in islice(lines, count)]


def test_status_has_the_servers_form(pair: tuple[Server, Server]) -> None:
    status, expected = (shape(server.get("/v1/atlas/status").json()) for server in pair)
    assert status == expected


def test_metrics_have_the_servers_form(pair: tuple[Server, Server]) -> None:
    metrics, expected = (shape(server.get("/v1/atlas/metrics").json()) for server in pair)
    assert metrics == expected


def test_streamed_metrics_have_the_servers_form(pair: tuple[Server, Server]) -> None:
    streamed, expected = (shape(events(server, "/v1/atlas/metrics/stream?interval=10", 2)) for server in pair)
    assert len(streamed) == 2
    assert streamed == expected


@pytest.mark.parametrize("path", ["/metrics", "/v1/atlas/metrics/prometheus"])
def test_series_are_the_servers(pair: tuple[Server, Server], path: str) -> None:
    series, expected = (
        {line.rpartition(" ")[0] for line in server.get(path).text.splitlines()} for server in pair
    )
    assert "atlas_uptime_seconds" in series
    assert series == expected


def test_settings_differ_by_where_they_come_from(pair: tuple[Server, Server]) -> None:
    found = [server.get("/v1/atlas/config").json()["data"]["settings"] for server in pair]
    settings, expected = (
        {row["name"]: {**row, "origin": ""} for row in rows if row["name"] != "memory_save_path"}
        for rows in found
    )
    assert settings == expected


@pytest.mark.parametrize("case", UNSERVED, ids=lambda case: case.name)
def test_other_paths_are_the_programs(example: Server, case: Case) -> None:
    assert case.send(example).status_code == 404


def busy_slots(server: Server) -> int:
    return sum(slot["is_processing"] for slot in server.get("/slots").json())


@pytest.mark.parametrize("headers", [{}, {"X-Conversation-Id": "left"}], ids=["", "conversation"])
@pytest.mark.parametrize("atlas", [{}, {"atlas": SESSION}], ids=["plain", "atlas"])
def test_a_client_that_leaves_frees_its_slot(
    example: Server, atlas: dict[str, Any], headers: dict[str, str]
) -> None:
    body = ENDLESS | atlas
    with example.client.stream("POST", "/completion", json=body, headers=headers) as response:
        lines = response.iter_lines()  # kept: its end would be the connection's
        next(lines)
        assert busy_slots(example) == 1
    example.wait_until(lambda: busy_slots(example) == 0)
    example.wait_until(lambda: example.get("/v1/atlas/status").json()["data"]["pool"]["in_use"] == 0)


def test_program_ends_beside_open_streams(tmp_path: Path) -> None:
    with (
        Example(tmp_path) as example,
        example.client.stream("GET", "/v1/atlas/metrics/stream?interval=10") as metrics,
        example.client.stream("POST", "/completion", json=ENDLESS) as completion,
    ):
        streams = [metrics.iter_lines(), completion.iter_lines()]
        for lines in streams:
            next(lines)
        assert example.stop() == 0


def test_program_says_when_its_port_is_taken(example: Server, tmp_path: Path) -> None:
    second = Example(tmp_path)
    second.command[2] = str(example.port)
    try:
        second.spawn()
        assert second.wait() == 1
    finally:
        second.kill()
        second.client.close()
    assert f"cannot listen on port {example.port}" in second.log
