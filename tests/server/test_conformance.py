"""What ATLAS was specified to do, by the headings of its specification: examples as they stand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conformance import (
    CHAT,
    COMPLETION,
    CONTEXT_ID,
    STATE,
    configure,
    configured,
    data_of,
    message_of,
    operate,
)
from tests.server.conftest import StartServer
from tests.server.harness import Server

CONTEXTS = 8
LAYERS = [1, 2]


@pytest.fixture(scope="module")
def specified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in the environment of the specification's example."""
    directory = tmp_path_factory.mktemp("specified")
    environment = {
        "ATLAS_ENABLED": "1",
        "ATLAS_MEMORY_PATH": str(directory / "memory"),
        "ATLAS_AUTO_SAVE_INTERVAL": "300",
        "ATLAS_MAX_CONCURRENT": "32",
        "ATLAS_LATENCY_BUDGET_MS": "5.0",
        "ATLAS_METRICS_INTERVAL": "1000",
    }
    with Server(["-np", str(CONTEXTS)], environment, directory=directory) as running:
        yield running


def assert_describes(atlas: dict[str, Any], request: dict[str, Any], usage: dict[str, Any]) -> None:
    """The answer's `atlas` object fits the request's, and the usage that the API tells."""
    assert atlas["session_id"] == request["session_id"]
    assert atlas["memory_layers"] == request["memory_layers"]
    assert atlas["layers_used"] == [layer for layer in LAYERS if layer <= request["memory_layers"]]
    assert atlas["prompt_tokens"] == usage["prompt_tokens"] > 0
    assert atlas["reused_tokens"] == usage["prompt_tokens_details"]["cached_tokens"]
    assert atlas["cache_hit"] is (atlas["reused_tokens"] > 0)
    assert atlas["layer"] in (0, *LAYERS)
    assert atlas["restore_ms"] >= 0
    assert atlas["overhead_ms"] > 0
    assert atlas["degraded"] is False
    assert atlas["reason"] is None or isinstance(atlas["reason"], str)


class TestQuickStart:
    def test_standard_request_with_a_session(self, specified: Server) -> None:
        body: dict[str, Any] = {
            "model": "your-model",
            "messages": [{"role": "user", "content": "Hello!"}],
            "atlas": {"memory_layers": 3, "cache_strategy": "adaptive", "session_id": "user123"},
        }
        answer = specified.post("/v1/chat/completions", body).json()
        assert answer["choices"][0]["message"]["role"] == "assistant"
        assert_describes(answer["atlas"], body["atlas"], answer["usage"])


class TestApiReference:
    def test_chat_completions_with_atlas(self, specified: Server) -> None:
        answer = specified.post("/v1/chat/completions", CHAT).json()
        assert answer["object"] == "chat.completion"
        (choice,) = answer["choices"]
        assert choice["message"]["role"] == "assistant"
        assert choice["finish_reason"] in ("stop", "length")
        assert answer["usage"]["completion_tokens"] <= 150
        assert_describes(answer["atlas"], CHAT["atlas"], answer["usage"])

    @pytest.mark.parametrize(
        ("field", "values"),
        [
            ("memory_layers", [1, 10]),
            ("cache_strategy", ["lru", "lfu", "adaptive"]),
            ("session_id", ["a", "unique-session-id"]),
            ("batch_size", [1, 32]),
        ],
    )
    def test_atlas_parameters(self, specified: Server, field: str, values: list[Any]) -> None:
        for value in values:
            answer = specified.post("/v1/chat/completions", {**CHAT, "atlas": {field: value}})
            assert answer.status_code == 200, answer.text

    @pytest.mark.parametrize(
        ("field", "values"),
        [
            ("memory_layers", [0, 11]),
            ("cache_strategy", ["fifo"]),
            ("session_id", ["", "a/b"]),
            ("batch_size", [0, 33]),
        ],
    )
    def test_atlas_parameters_out_of_range(self, specified: Server, field: str, values: list[Any]) -> None:
        for value in values:
            answer = specified.post("/v1/chat/completions", {**CHAT, "atlas": {field: value}})
            assert f"'atlas.{field}'" in message_of(answer, 400)

    def test_standard_completions(self, specified: Server) -> None:
        answer = specified.post("/v1/completions", COMPLETION).json()
        assert answer["object"] == "text_completion"
        (choice,) = answer["choices"]
        assert isinstance(choice["text"], str)
        assert answer["usage"]["completion_tokens"] <= 50
        assert_describes(answer["atlas"], COMPLETION["atlas"], answer["usage"])

    def test_health_check(self, specified: Server) -> None:
        document = specified.get("/v1/atlas/status").json()
        assert document["status"] == "healthy"
        data = document["data"]
        assert data["initialized"] is True
        assert data["context_pool_size"] == CONTEXTS
        assert type(data["metrics_enabled"]) is bool
        assert data["memory_persistence"] is True
        assert 0 < data["uptime_seconds"] < 3600

    def test_memory_operations(self, specified: Server) -> None:
        saved = data_of(operate(specified, "save", {"context_id": CONTEXT_ID, "state": STATE}))
        assert saved["context_id"] == CONTEXT_ID
        loaded = data_of(operate(specified, "load", {"context_id": CONTEXT_ID}))
        assert (loaded["context_id"], loaded["state"]) == (CONTEXT_ID, STATE)
        assert CONTEXT_ID in self.ids(specified)
        deleted = data_of(operate(specified, "delete", {"context_id": CONTEXT_ID}))
        assert deleted == {"context_id": CONTEXT_ID, "freed_bytes": saved["bytes"]}
        assert CONTEXT_ID not in self.ids(specified)
        assert operate(specified, "load", {"context_id": CONTEXT_ID}).status_code == 404

    def ids(self, server: Server) -> list[str]:
        return [context["context_id"] for context in data_of(operate(server, "list", {}))["contexts"]]

    def test_memory_of_a_session(self, specified: Server) -> None:
        session = {"session_id": "remembered"}
        answer = specified.post("/v1/chat/completions", {**CHAT, "atlas": session}).json()
        expected = [*CHAT["messages"], answer["choices"][0]["message"]]

        def load() -> httpx.Response:
            return operate(specified, "load", {"context_id": "remembered"})

        specified.wait_until(lambda: load().status_code == 200)
        specified.wait_until(lambda: data_of(load())["session"]["conversation_history"])
        assert data_of(load())["state"] == {
            "conversation_history": expected,
            "user_preferences": {},
            "context_memory": {},
        }
        data_of(operate(specified, "save", {"context_id": "remembered", "state": STATE}))
        loaded = data_of(load())
        assert loaded["state"] == STATE
        assert loaded["session"]["conversation_history"] == expected

    def test_every_route_is_described(self, specified: Server) -> None:
        paths = specified.get("/v1/atlas/openapi.json").json()["paths"]
        operations = {f"/v1/atlas/memory/{name}" for name in ("save", "load", "list", "delete")}
        assert {"/v1/atlas/status", "/v1/atlas/config", "/v1/chat/completions", *operations} <= paths.keys()


class TestConfiguration:
    def test_environment_variables(self, specified: Server) -> None:
        given = {
            name: row["value"]
            for name, row in configured(specified).items()
            if row["origin"] == "environment"
        }
        path = given.pop("memory_save_path")
        assert Path(path).is_dir()
        expected = {
            "enabled": True,
            "auto_save_interval_s": 300.0,
            "max_concurrent_atlas_requests": 32,
            "api_latency_budget_ms": 5.0,
        }
        assert expected.items() <= given.items()

    def test_server_configuration(self, specified: Server) -> None:
        fields = {
            "enable_memory_persistence",
            "memory_save_path",
            "max_concurrent_atlas_requests",
            "api_latency_budget_ms",
        }
        assert fields <= configured(specified).keys()

    def test_disabled(self, start_server: StartServer) -> None:
        server = start_server(environment={"ATLAS_ENABLED": "0"})
        assert server.get("/v1/atlas/status").status_code == 404
        assert "atlas" not in server.post("/v1/completions", COMPLETION).json()


class TestIntegrationGuide:
    def test_config_endpoint(self, start_server: StartServer) -> None:
        server = start_server()
        wanted = {"max_concurrent_atlas_requests": 16, "pool_timeout_ms": 50.0}
        assert data_of(configure(server, **wanted))["changed"] == wanted
        rows = configured(server)
        assert {name: rows[name]["value"] for name in wanted} == wanted

    def test_config_endpoint_changes_all_or_nothing(self, specified: Server) -> None:
        before = configured(specified)
        answer = configure(
            specified, pool_timeout_ms=1, max_concurrent_atlas_requests=0, context_pool_size=2, colour="red"
        )
        message = message_of(answer, 400)
        for name in ("max_concurrent_atlas_requests", "context_pool_size", "colour"):
            assert f"'settings.{name}'" in message
        assert configured(specified) == before


class TestPerformanceOptimization:
    def test_context_pool_tuning_and_memory_management(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        l1, l2 = 64 * 1024 * 1024, 256 * 1024 * 1024
        sizes = ["--atlas-l1-cache-size", str(l1), "--atlas-l2-cache-size", str(l2)]
        server = start_server(
            ["--atlas-memory-path", tmp_path / "memory", "--atlas-context-pool-size", "1", *sizes]
        )
        data = server.get("/v1/atlas/status").json()["data"]
        assert data["pool"]["contexts"] == 1
        assert (data["memory"]["ram"]["budget"], data["memory"]["disk"]["budget"]) == (l1, l2)


class TestLogging:
    @pytest.mark.parametrize(
        "text",
        [
            f"[ATLAS] Context pool initialized with {CONTEXTS} contexts",
            "memory_layers=3, cache_hit=",
        ],
    )
    def test_lines(self, specified: Server, text: str) -> None:
        specified.post("/v1/chat/completions", CHAT)
        assert specified.logged(text)


class TestMigrationGuide:
    def test_standard_requests_work_without_modification(self, specified: Server) -> None:
        body = {key: value for key, value in CHAT.items() if key != "atlas"}
        answer = specified.post("/v1/chat/completions", body)
        assert answer.status_code == 200
        assert "atlas" not in answer.json()
