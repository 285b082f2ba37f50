"""Plugins with signal handlers and threads of their own change nothing in how the server ends."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.builtins import BUILTIN
from tests.server.conftest import StartServer
from tests.server.harness import Server
from tests.server.lifecycle import BOTH_SIGNALS, plugin_options


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
        assert [plugin["state"] for plugin in plugins(server)] == ["active"] * (len(BUILTIN) + 1)
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
        expected = signal_dispositions(without)
        # The stacks of Python are shown by it.
        expected["SigCgt"] |= 1 << signal.SIGUSR1 - 1
        assert signal_dispositions(with_python) == expected


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
            assert server.logged("probe: chatter")

    def test_threads_that_query_until_the_end(self, start_server: StartServer, tmp_path: Path) -> None:
        source = """
def ask(query):
    while True:
        try:
            query()
        except Exception:
            pass

@hookimpl
def startup(host):
    for query in (host.status, host.metrics, host.settings, host.requests):
        threading.Thread(target=ask, args=(query,), daemon=True).start()
"""
        for _ in range(8):
            server = start_server(
                [*plugin_options(tmp_path, source), "--atlas-memory-path", tmp_path / "memory"]
            )
            assert server.stop() == 0

    def test_threads_of_a_start_that_failed(self, spawn_server: StartServer, tmp_path: Path) -> None:
        source = """
@hookimpl
def startup(host):
    def ask():
        while True:
            try:
                host.status()
            except Exception:
                pass
    for _ in range(4):
        threading.Thread(target=ask, daemon=True).start()
    raise LookupError("this plugin does not start")
"""
        for _ in range(4):
            assert spawn_server([*plugin_options(tmp_path, source), "--atlas-require-python"]).wait() == 1

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
        assert server.logged("thread thinker ended by an exception")
        assert server.logged("LookupError: lost in thought")
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
        assert server.logged("probe: closing the shop")
        assert server.logged("plugin 'probe' failed in shutdown")
        assert server.logged("OSError: the door is stuck")


class TestHostFunctions:
    def test_no_memory_for_what_they_are_given(self, start_server: StartServer, tmp_path: Path) -> None:
        """Nothing is thrown through Python's frames, and what is lost makes the answer a failure."""
        source = """
import gc

from atlas_plugin.host.host import EmbeddedHost

def huge():
    return server._ffi.cast("char *", 4096), 2**63 - 1

@hookimpl
def startup():
    global server
    [server] = [one for one in gc.get_objects() if type(one) is EmbeddedHost]
    borrow = server.borrow
    server.borrow = lambda data: huge() if data == b"too much" else borrow(data)

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/log")
    def log_(request):
        server._api.log(4, huge())
        return "gone on"

    @routes.get("/v1/atlas/x/sink")
    def sink(request):
        sink = server._api.sink_new()
        server._api.sink_header(sink, huge(), huge())
        server._api.sink_body(sink, huge())
        return "gone on"

    @routes.get("/v1/atlas/x/answer")
    def answer(request):
        return "too much"
"""
        server = start_server(plugin_options(tmp_path, source))
        assert server.get("/v1/atlas/x/log").text == "gone on"
        assert server.get("/v1/atlas/x/sink").text == "gone on"
        answer = server.get("/v1/atlas/x/answer")
        assert (answer.status_code, answer.json()["error"]["message"]) == (500, "Internal server error")
        assert server.stop() == 0


def plugins(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/v1/atlas/plugins").json()["data"]["plugins"]
    return found


def signal_dispositions(server: Server) -> dict[str, int]:
    """Which signals are blocked, ignored and caught: a bit for each."""
    assert server.process is not None
    lines = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":\t", 1) for line in lines)
    return {name: int(fields[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")}
