"""What ATLAS was specified to do when something is wrong, by the headings of its specification."""

import json
import socket
from pathlib import Path

import pytest

from tests.server.completions import ENDLESS_OPTIONS, endless
from tests.server.conformance import CHAT, COMPLETION, CONTEXT_ID, STATE, message_of, operate, pool
from tests.server.conftest import StartServer
from tests.server.harness import Server


class TestErrorHandling:
    def test_response_format(self, server: Server) -> None:
        answer = server.post("/v1/chat/completions", {**CHAT, "atlas": {"memory_layers": 11}})
        assert message_of(answer, 400) == (
            "Validation error in field 'atlas.memory_layers': value must be between 1 and 10"
        )

    def test_rate_limit_exceeded(self, start_server: StartServer) -> None:
        server = start_server([*ENDLESS_OPTIONS, "--atlas-max-concurrent", "1"])
        with endless(server, atlas={}):
            refused = server.post("/v1/completions", COMPLETION)
            standard = server.post("/completion", {"prompt": "a", "n_predict": 1})
        assert "1 ATLAS requests are in progress" in message_of(refused, 429)
        assert int(refused.headers["Retry-After"]) >= 1
        assert standard.status_code == 200
        server.wait_until(lambda: pool(server)["in_progress"] == 0)
        assert server.post("/v1/completions", COMPLETION).status_code == 200

    def test_context_pool_exhausted(self, start_server: StartServer) -> None:
        server = start_server(["-np", "1", *ENDLESS_OPTIONS, "--atlas-pool-timeout-ms", "50"])
        with endless(server):
            refused = server.post("/v1/completions", COMPLETION)
        assert message_of(refused, 503).startswith("No available ATLAS contexts")
        assert int(refused.headers["Retry-After"]) >= 1
        server.wait_until(lambda: pool(server)["in_use"] == 0)
        assert server.post("/v1/completions", COMPLETION).status_code == 200

    def test_internal_server_error(self, start_server: StartServer, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        server = start_server(["--atlas-memory-path", tmp_path / "file" / "memory"])
        refused = operate(server, "save", {"context_id": CONTEXT_ID, "state": STATE})
        assert "Failed to save context state" in message_of(refused, 500)
        # reduced functionality
        document = server.get("/v1/atlas/status").json()
        assert (document["status"], document["data"]["memory_persistence"]) == ("degraded", False)
        assert server.post("/v1/completions", COMPLETION).status_code == 200


class TestErrorRecovery:
    def test_falls_back_to_standard_processing(self, start_server: StartServer) -> None:
        options = ["--atlas-context-pool-size", "1", "--atlas-pool-timeout-ms", "50"]
        server = start_server([*ENDLESS_OPTIONS, *options])
        with endless(server):
            answer = server.post("/v1/completions", {**COMPLETION, "atlas": {"memory_layers": 2}}).json()
        assert answer["atlas"]["degraded"] is True
        assert "no context became free in time" in answer["atlas"]["reason"]

    def test_a_client_that_leaves_frees_its_place(self, start_server: StartServer) -> None:
        server = start_server(["-np", "1", *ENDLESS_OPTIONS])
        with endless(server):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                body = json.dumps(COMPLETION).encode()
                client.sendall(
                    b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                server.wait_until(lambda: pool(server)["waiting"] == 1)
            server.wait_until(lambda: pool(server)["waiting"] == pool(server)["in_progress"] == 0)


class TestTroubleshooting:
    def test_high_latency_in_debug_mode(self, start_server: StartServer) -> None:
        server = start_server(["--atlas-latency-budget-ms", "0.001", "--atlas-verbose"])
        server.post("/v1/completions", COMPLETION)
        server.wait_until(
            lambda: server.get("/v1/atlas/status").json()["data"]["latency_budget_breaches"] == 1
        )
        assert server.logged("over the latency budget of 0.001 ms: parse ")


class TestBestPractices:
    @pytest.mark.parametrize("wrong", ["../../etc/passwd", "a b", "a" * 129])
    def test_session_and_context_ids_are_validated(self, server: Server, wrong: str) -> None:
        session = {**COMPLETION, "atlas": {"session_id": wrong}}
        assert "'atlas.session_id'" in message_of(server.post("/v1/completions", session), 400)
        assert "'context_id'" in message_of(operate(server, "load", {"context_id": wrong}), 400)

    @pytest.mark.parametrize("whose", ["session", "key"])
    def test_rate_limits(self, start_server: StartServer, whose: str) -> None:
        server = start_server([f"--atlas-{whose}-requests-per-s", "0.001"])
        assert server.post("/v1/completions", COMPLETION).status_code == 200
        refused = server.post("/v1/completions", COMPLETION)
        assert message_of(refused, 429).startswith("Rate limit exceeded for this ")
        assert 0 < int(refused.headers["Retry-After"]) <= 1000
        other = {**COMPLETION, "atlas": {"session_id": "another"}}
        assert server.post("/v1/completions", other).status_code == (200 if whose == "session" else 429)
