"""Plugins with signal handlers and threads of their own change nothing in how the server ends."""

import signal
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin.builtin import BUILTIN_PLUGINS
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
        assert [plugin["state"] for plugin in plugins(server)] == ["active"] * (len(BUILTIN_PLUGINS) + 1)
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


def plugins(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/v1/atlas/plugins").json()["data"]["plugins"]
    return found


def signal_dispositions(server: Server) -> dict[str, int]:
    """Which signals are blocked, ignored and caught: a bit for each."""
    assert server.process is not None
    lines = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":\t", 1) for line in lines)
    return {name: int(fields[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")}
