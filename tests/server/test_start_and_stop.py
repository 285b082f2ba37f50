"""Signals in every phase of the server's life, and what its end waits for."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import StartServer
from tests.server.harness import Server, write_plugin

BOTH_SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)

# The shutdown hook leaves a file, so that a test sees that it ran to its end.
SHUTDOWN_HOOK = """
import asyncio, ctypes, logging, pathlib, signal, threading, time
from atlas_plugin import StreamResponse, hookimpl

HERE = pathlib.Path(__file__).parent
log = logging.getLogger(__name__)

def wait_for(name):
    while not (HERE / name).exists():
        time.sleep(0.005)

@hookimpl
def shutdown():
    (HERE / "shutdown.ran").touch()
"""

BLOCKING_SHUTDOWN = """
@hookimpl
def shutdown():
    (HERE / "shutdown.entered").touch()
    wait_for("release")
    (HERE / "shutdown.ran").touch()
"""

WAITING_ROUTES = """
@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/wait")
    def wait(request):
        (HERE / "wait.entered").touch()
        wait_for("release")
        return "released"

    @routes.get("/v1/atlas/x/hold-the-interpreter")
    def hold_the_interpreter(request):
        (HERE / "hold.entered").touch()
        ctypes.PyDLL(None).pause()

    @routes.get("/v1/atlas/x/ticks")
    def ticks(request):
        return StreamResponse(tick())

    @routes.get("/v1/atlas/x/wait-in-a-stream")
    def wait_in_a_stream(request):
        return StreamResponse(one_and_wait())

def tick():
    try:
        while True:
            yield "tick\\n"
            time.sleep(0.005)
    finally:
        (HERE / "stream.closed").touch()

def one_and_wait():
    yield "one\\n"
    wait_for("release")
"""

LONG_COMPLETION = {"prompt": "Once", "n_predict": -1, "ignore_eos": True, "stream": True}


def plugin_options(directory: Path, source: str = "") -> list[str | Path]:
    return ["--atlas-plugin", write_plugin(directory, SHUTDOWN_HOOK + source)]


@pytest.fixture
def spawn_server(tmp_path: Path) -> Iterator[StartServer]:
    """As start_server, but does not wait: for servers that never serve."""
    servers: list[Server] = []

    def spawn(*arguments: Any, **options: Any) -> Server:
        server = Server(*arguments, directory=tmp_path, **options)
        servers.append(server)
        server.spawn()
        return server

    yield spawn
    for server in servers:
        server.kill()
        server.client.close()


@pytest.fixture
def endless_model(tmp_path: Path) -> Path:
    """A model whose loading never ends: opening a FIFO waits for a writer."""
    path = tmp_path / "model.gguf"
    os.mkfifo(path)
    return path


@contextmanager
def in_background(server: Server, path: str) -> Iterator[list[httpx.Response | None]]:
    """A GET on a thread; the list gets its answer, or None when the connection was cut."""
    answers: list[httpx.Response | None] = []

    def get() -> None:
        try:
            answers.append(httpx.get(server.url + path, timeout=60.0))
        except httpx.TransportError:
            answers.append(None)

    thread = threading.Thread(target=get)
    thread.start()
    try:
        yield answers
    finally:
        thread.join()


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
            server.wait_until((tmp_path / "shutdown.ran").exists)
        # as with stock, the end waits for the client of a running completion to leave
        assert server.wait() == 0

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

    def test_a_second_signal_ends_a_slow_shutdown(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(
            [*plugin_options(tmp_path, BLOCKING_SHUTDOWN), "--atlas-shutdown-timeout", "600"]
        )
        server.signal(signal.SIGINT)
        server.wait_until((tmp_path / "shutdown.entered").exists)
        server.signal(signal.SIGINT)
        assert server.wait() == 1
        assert "Received second interrupt" in server.log


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
        assert "1 Python call(s) did not end within 0.5 s; going on without them" in server.log
        assert (tmp_path / "shutdown.ran").exists() == hook_runs

    def test_a_stream_that_never_goes_on(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server([*plugin_options(tmp_path, WAITING_ROUTES), "--atlas-shutdown-timeout", "0.5"])
        with server.client.stream("GET", "/v1/atlas/x/wait-in-a-stream") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "one"
            assert server.stop() == 0
        assert "1 Python call(s) did not end within 0.5 s; going on without them" in server.log
        assert (tmp_path / "shutdown.ran").exists()

    def test_a_shutdown_hook_that_never_ends(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(
            [*plugin_options(tmp_path, BLOCKING_SHUTDOWN), "--atlas-shutdown-timeout", "0.5"]
        )
        assert server.stop() == 0
        assert "the shutdown hooks did not end within" in server.log


class TestPluginsAndSignals:
    @BOTH_SIGNALS
    @pytest.mark.parametrize(
        "source",
        [
            "\n@hookimpl\ndef startup():\n    asyncio.run(asyncio.sleep(0))\n",
            "\nsignal.signal(signal.SIGINT, print)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n",
            "\n@hookimpl\ndef startup():\n    loop = asyncio.new_event_loop()\n"
            "    loop.add_signal_handler(signal.SIGINT, print)\n"
            "    loop.add_signal_handler(signal.SIGTERM, print)\n",
        ],
        ids=["asyncio.run", "signal.signal", "add_signal_handler"],
    )
    def test_the_servers_handlers_stay(
        self, start_server: StartServer, tmp_path: Path, source: str, number: signal.Signals
    ) -> None:
        server = start_server(plugin_options(tmp_path, source))
        assert [plugin["state"] for plugin in plugins(server)] == ["active"] * 5
        server.signal(number)
        assert server.wait() == 0
        assert (tmp_path / "shutdown.ran").exists()

    @BOTH_SIGNALS
    def test_a_plugins_handlers_do_not_outlive_the_start(
        self, spawn_server: StartServer, tmp_path: Path, endless_model: Path, number: signal.Signals
    ) -> None:
        source = "signal.signal(signal.SIGINT, print)\nsignal.signal(signal.SIGTERM, print)\n"
        server = spawn_server(plugin_options(tmp_path, source), model=endless_model)
        server.wait_until(lambda: "loading model" in server.log)
        server.signal(number)
        assert server.wait() == -number

    def test_dispositions_are_those_without_python(self, start_server: StartServer, tmp_path: Path) -> None:
        source = "import asyncio, multiprocessing, subprocess, faulthandler\n"
        with_python = start_server(plugin_options(tmp_path, source))
        without = start_server(environment={"ATLAS_ENABLED": "0"})
        assert signal_dispositions(with_python) == signal_dispositions(without)


class TestThreadsOfPlugins:
    @pytest.mark.parametrize("daemon", [True, False])
    def test_threads_that_log_until_the_end(
        self, start_server: StartServer, tmp_path: Path, daemon: bool
    ) -> None:
        source = f"""
def chatter():
    while True:
        log.info("chatter")

@hookimpl
def startup():
    for _ in range(3):
        threading.Thread(target=chatter, daemon={daemon}).start()
"""
        for _ in range(3):
            server = start_server(plugin_options(tmp_path, source))
            assert server.stop() == 0
            assert "probe: chatter" in server.log

    def test_an_exception_of_a_thread_is_logged(self, start_server: StartServer, tmp_path: Path) -> None:
        source = """
def work():
    raise LookupError("lost in thought")

@hookimpl
def startup():
    thread = threading.Thread(target=work, name="thinker")
    thread.start()
    thread.join()
"""
        server = start_server(plugin_options(tmp_path, source))
        assert "thread thinker ended by an exception" in server.log
        assert "LookupError: lost in thought" in server.log
        assert server.get("/v1/atlas/status").json()["status"] == "healthy"
        assert server.stop() == 0

    def test_what_a_shutdown_hook_logs_and_raises(self, start_server: StartServer, tmp_path: Path) -> None:
        source = """
@hookimpl
def shutdown():
    log.warning("closing the shop")
    raise OSError("the door is stuck")
"""
        server = start_server([*plugin_options(tmp_path, source), "--atlas-memory-path", tmp_path / "memory"])
        assert server.stop() == 0
        assert "probe: closing the shop" in server.log
        assert "plugin 'probe' failed in shutdown" in server.log
        assert "OSError: the door is stuck" in server.log


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


def plugins(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/v1/atlas/plugins").json()["data"]["plugins"]
    return found


def signal_dispositions(server: Server) -> dict[str, str]:
    """Which signals are blocked, ignored and caught, as the kernel prints it."""
    assert server.process is not None
    lines = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":\t", 1) for line in lines)
    return {name: fields[name] for name in ("SigBlk", "SigIgn", "SigCgt")}
