"""Signals in every phase of the server's life, and what its end waits for."""

import os
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.server.completions import ENDLESS_OPTIONS, endless
from tests.server.conftest import StartServer
from tests.server.harness import Server, ServerExitedError
from tests.server.lifecycle import (
    BLOCKING_SHUTDOWN,
    BOTH_SIGNALS,
    WAITING_ROUTES,
    in_background,
    plugin_options,
)
from tests.server.preloading import preloaded

LONG_COMPLETION = {"prompt": "Once", "n_predict": -1, "ignore_eos": True, "stream": True}
SHUTTING_DOWN_EVENT = (
    'data: {"error":{"code":503,"message":"the server is shutting down","type":"unavailable_error"}}'
)

# Sends the process one SIGTERM as soon as it has a handler for it, and holds up the main thread meanwhile.
SIGTERM_AT_ONCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

int sigaction(int number, const struct sigaction * action, struct sigaction * before) {
    int (*next)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
    const int result = next(number, action, before);
    static int sent;
    if (number == SIGTERM && action && action->sa_handler != SIG_DFL && !sent++) {
        raise(SIGTERM);
        usleep(300000);
    }
    return result;
}
"""


class TestBeforeServing:
    @BOTH_SIGNALS
    def test_a_signal_while_a_plugin_starts(
        self, spawn_server: StartServer, tmp_path: Path, number: signal.Signals
    ) -> None:
        startup = """
@hookimpl
def startup():
    asyncio.run(asyncio.sleep(0))
    (HERE / "startup.entered").touch()
    wait_for("never")
"""
        server = spawn_server(plugin_options(tmp_path, startup))
        server.wait_until((tmp_path / "startup.entered").exists)
        server.signal(number)
        assert server.wait() == -number

    @BOTH_SIGNALS
    @pytest.mark.parametrize("enabled", ["1", "0"])
    def test_a_signal_while_the_model_loads(
        self, spawn_server: StartServer, endless_model: Path, number: signal.Signals, enabled: str
    ) -> None:
        server = spawn_server(environment={"ATLAS_ENABLED": enabled}, model=endless_model)
        server.wait_until(lambda: "loading model" in server.log)
        server.signal(number)
        assert server.wait() == -number

    def test_a_signal_between_the_handlers_and_the_first_task(
        self, spawn_server: StartServer, tmp_path: Path
    ) -> None:
        server = spawn_server(plugin_options(tmp_path), preloaded(tmp_path, "at_once", SIGTERM_AT_ONCE))
        assert server.wait() == 0
        assert (tmp_path / "shutdown.ran").exists()

    def test_requests_while_the_model_loads(self, spawn_server: StartServer, endless_model: Path) -> None:
        server = spawn_server(model=endless_model)
        server.wait_until(lambda: "loading model" in server.log)
        for answer in (
            server.get("/v1/atlas/status"),
            server.post("/v1/atlas/memory/load", {"context_id": "a"}),
            server.get("/v1/atlas/nothing"),
        ):
            assert_error(answer, 503, "service_unavailable")
            assert answer.json()["error"]["message"] == "Loading model"

    def test_a_model_that_cannot_be_loaded(self, spawn_server: StartServer, tmp_path: Path) -> None:
        model = tmp_path / "model.gguf"
        model.write_bytes(b"not a model")
        assert spawn_server(plugin_options(tmp_path), model=model).wait() == 1
        assert (tmp_path / "shutdown.ran").exists()

    def test_a_failed_start_that_a_client_holds_up(
        self, spawn_server: StartServer, endless_model: Path
    ) -> None:
        """It is a failure still when it has to be cut short."""
        server = spawn_server(["--atlas-shutdown-timeout", "0.5"], model=endless_model)
        server.wait_until(lambda: "loading model" in server.log)
        with socket.create_connection(("127.0.0.1", server.port)) as half_a_request:
            half_a_request.sendall(b"GET /health HTTP/1.1\r\n")
            server.wait_until(lambda: server.get("/health").status_code == 503)
            with pytest.raises(ServerExitedError, match="exit status 1\n"):
                server.wait_until(lambda: feed(endless_model))
        assert server.logged("ending although requests are still open")


class TestWhileServing:
    @BOTH_SIGNALS
    def test_idle(self, start_server: StartServer, tmp_path: Path, number: signal.Signals) -> None:
        server = start_server(plugin_options(tmp_path))
        server.signal(number)
        assert server.wait() == 0
        assert (tmp_path / "shutdown.ran").exists()

    @BOTH_SIGNALS
    def test_during_a_streamed_completion(
        self, start_server: StartServer, tmp_path: Path, number: signal.Signals
    ) -> None:
        server = start_server(plugin_options(tmp_path))
        with server.client.stream("POST", "/completion", json=LONG_COMPLETION) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            server.signal(number)
            # its client stays, and is told
            assert [line for line in lines if line][-1] == SHUTTING_DOWN_EVENT
            assert server.wait() == 0
        assert (tmp_path / "shutdown.ran").exists()

    @BOTH_SIGNALS
    def test_during_a_python_stream(
        self, start_server: StartServer, tmp_path: Path, number: signal.Signals
    ) -> None:
        server = start_server(plugin_options(tmp_path, WAITING_ROUTES))
        with server.client.stream("GET", "/v1/atlas/x/ticks") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "tick"
            server.signal(number)
            assert set(lines) <= {"tick"}
        assert server.wait() == 0
        assert (tmp_path / "stream.closed").exists()
        assert (tmp_path / "shutdown.ran").exists()

    def test_a_running_call_is_waited_for(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(plugin_options(tmp_path, WAITING_ROUTES))
        with in_background(server, "/v1/atlas/x/wait") as answers:
            server.wait_until((tmp_path / "wait.entered").exists)
            server.signal(signal.SIGTERM)
            server.wait_until(lambda: server.get("/v1/atlas/status").status_code == 503)
            assert not (tmp_path / "shutdown.ran").exists()
            (tmp_path / "release").touch()
        assert [answer and answer.text for answer in answers] == ["released"]
        assert server.wait() == 0
        assert (tmp_path / "shutdown.ran").exists()

    def test_calls_after_shutdown_began(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(
            [*plugin_options(tmp_path, BLOCKING_SHUTDOWN), "--atlas-memory-path", tmp_path / "memory"]
        )
        server.signal(signal.SIGTERM)
        server.wait_until((tmp_path / "shutdown.entered").exists)
        for _ in range(20):
            for answer in (
                server.get("/v1/atlas/status"),
                server.post("/v1/atlas/memory/save", {"context_id": "late", "state": {}}),
                server.client.delete("/v1/atlas/nothing"),
            ):
                assert_error(answer, 503, "service_unavailable")
                assert answer.json()["error"]["message"] == "the server is shutting down"
        server.client.close()
        (tmp_path / "release").touch()
        assert server.wait() == 0
        assert (tmp_path / "shutdown.ran").exists()

    def test_who_waits_for_a_turn_is_told(self, start_server: StartServer, tmp_path: Path) -> None:
        """A session's next request need not wait for the end of one that the shutdown will cut."""
        options = ["--atlas-memory-path", tmp_path / "memory", "--atlas-shutdown-timeout", "20"]
        server = start_server([*options, *ENDLESS_OPTIONS])
        chat = "/v1/chat/completions"
        turn = {"atlas": {"session_id": "busy", "history": "server"}}
        next_one = {"messages": [{"role": "user", "content": "And now?"}], **turn}
        with endless(server, chat, **turn), in_background(server, chat, next_one) as answers:
            metrics = "/v1/atlas/metrics/prometheus"
            server.wait_until(lambda: "atlas_requests_in_progress 2.0" in server.get(metrics).text)
            server.signal(signal.SIGTERM)
            server.wait_until(lambda: answers)
        assert answers[0] is not None
        assert_error(answers[0], 503, "service_unavailable")
        assert answers[0].json()["error"]["message"] == "the server is shutting down"


class TestHanging:
    @pytest.mark.parametrize(
        ("path", "entered", "hook_runs"),
        [
            ("/v1/atlas/x/wait", "wait.entered", True),
            ("/v1/atlas/x/hold-the-interpreter", "hold.entered", False),
        ],
    )
    def test_a_call_that_never_ends(
        self, start_server: StartServer, tmp_path: Path, path: str, entered: str, hook_runs: bool
    ) -> None:
        server = start_server([*plugin_options(tmp_path, WAITING_ROUTES), "--atlas-shutdown-timeout", "0.5"])
        with in_background(server, path) as answers:
            server.wait_until((tmp_path / entered).exists)
            assert server.stop() == 0
        assert answers == [None]
        assert server.logged("1 Python call(s) did not end within 0.5 s; going on without them")
        assert (tmp_path / "shutdown.ran").exists() == hook_runs

    def test_a_stream_that_never_goes_on(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server([*plugin_options(tmp_path, WAITING_ROUTES), "--atlas-shutdown-timeout", "0.5"])
        with server.client.stream("GET", "/v1/atlas/x/wait-in-a-stream") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "one"
            server.wait_until((tmp_path / "stream.waiting").exists)
            assert server.stop() == 0
        assert server.logged("1 Python call(s) did not end within 0.5 s; going on without them")
        assert (tmp_path / "shutdown.ran").exists()

    def test_a_shutdown_hook_that_never_ends(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(
            [*plugin_options(tmp_path, BLOCKING_SHUTDOWN), "--atlas-shutdown-timeout", "0.5"]
        )
        assert server.stop() == 0
        assert server.logged("the shutdown hooks did not end within")
        assert server.logged("ending although a call into Python has not come to its end")


def feed(fifo: Path) -> None:
    """Write something to it, if anybody reads."""
    with suppress(OSError):
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, b"not a model")
        os.close(fd)


def test_starts_and_stops_under_load(tmp_path: Path) -> None:
    options = [*plugin_options(tmp_path, WAITING_ROUTES), "--atlas-memory-path", tmp_path / "memory"]
    server = Server(options, directory=tmp_path)
    for round_number in range(20):
        (tmp_path / "shutdown.ran").unlink(missing_ok=True)
        server.start()
        statuses: list[int] = []
        threads = [
            threading.Thread(target=request_until_the_end, args=(server, kind, statuses)) for kind in range(3)
        ]
        for thread in threads:
            thread.start()
        server.wait_until(lambda seen=statuses: len(seen) >= 12)
        server.signal(signal.SIGINT if round_number % 2 else signal.SIGTERM)
        assert server.wait() == 0, server.log
        for thread in threads:
            thread.join()
        assert set(statuses) <= {200, 503}
        assert (tmp_path / "shutdown.ran").exists()
    server.client.close()


def request_until_the_end(server: Server, kind: int, statuses: list[int]) -> None:
    state = {"context_id": "busy", "state": {"text": "x" * 1000}}
    with httpx.Client(base_url=server.url, timeout=60.0) as client:
        try:
            while True:
                if kind == 0:
                    answer = client.post("/v1/atlas/memory/save", json=state)
                elif kind == 1:
                    answer = client.get("/v1/atlas/status")
                else:
                    with client.stream("GET", "/v1/atlas/x/ticks") as answer:
                        next(answer.iter_bytes(), None)
                statuses.append(answer.status_code)
        except httpx.TransportError:
            pass


def assert_error(answer: httpx.Response, status: int, kind: str) -> None:
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "type", "timestamp"}
    assert (error["code"], error["type"]) == (status, kind)
