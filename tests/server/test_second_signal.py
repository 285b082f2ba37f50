"""A second signal ends the process at once, whatever hangs."""

import fcntl
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import ASK_NAME, Conversation, chat, memory_options
from tests.server.harness import Server
from tests.server.lifecycle import (
    BLOCKING_SHUTDOWN,
    BOTH_SIGNALS,
    WAITING_ROUTES,
    in_background,
    plugin_options,
)
from tests.server.preloading import HangingDisk

PATIENT = ["--atlas-shutdown-timeout", "600"]


@BOTH_SIGNALS
def test_while_the_disk_hangs(start_server: StartServer, tmp_path: Path, number: signal.Signals) -> None:
    disk = HangingDisk(tmp_path)
    server = start_server([*memory_options(tmp_path), *PATIENT], disk.environment)
    disk.hang()
    chat(server, Conversation(1).asking(ASK_NAME))
    server.wait_until(disk.hangs)
    end_twice(server, number)


def test_while_a_shutdown_hook_hangs(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*plugin_options(tmp_path, BLOCKING_SHUTDOWN), *PATIENT])
    server.signal(signal.SIGINT)
    server.wait_until((tmp_path / "shutdown.entered").exists)
    server.signal(signal.SIGTERM)
    assert server.wait() == 1


@pytest.mark.parametrize("call", ["wait", "hold-the-interpreter"])
def test_while_a_call_into_python_hangs(start_server: StartServer, tmp_path: Path, call: str) -> None:
    server = start_server([*plugin_options(tmp_path, WAITING_ROUTES), *PATIENT])
    with in_background(server, f"/v1/atlas/x/{call}"):
        server.wait_until((tmp_path / f"{call.partition('-')[0]}.entered").exists)
        end_twice(server, signal.SIGTERM)


def test_while_nobody_reads_the_log(tmp_path: Path) -> None:
    server = Server(PATIENT, directory=tmp_path)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    # a description of its own, as O_NONBLOCK would be the server's, too
    filler = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    server.process = subprocess.Popen(server.command, env=server.environment, stdout=writer, stderr=writer)
    try:
        server.wait_until(lambda: server.answers("/health") and server.catches(signal.SIGTERM))
        with suppress(BlockingIOError):
            while True:
                os.write(filler, b"x" * 4096)
        with suppress(BlockingIOError):
            while True:
                os.write(filler, b"x")
        server.signal(signal.SIGTERM)
        server.wait_until(lambda: not server.answers("/health"))
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
    finally:
        server.kill()
        server.client.close()
        for fd in (reader, writer, filler):
            os.close(fd)


def end_twice(server: Server, number: signal.Signals) -> None:
    """Two signals, the second one after the shutdown has begun."""
    server.signal(number)
    assert server.logged("cleaning up before exit")
    server.signal(number)
    assert server.wait() == 1
    assert server.logged("Received second interrupt")
