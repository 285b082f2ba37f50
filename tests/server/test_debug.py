"""Where Python is, told while it works and while it is stuck."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.server.completions import BODIES
from tests.server.conftest import StartServer
from tests.server.harness import Server, write_plugin
from tests.server.keys import ADA, ADMIN, key_options, with_key

STACKS = "/v1/atlas/debug/stacks"

PLUGIN = """
import ctypes
import pathlib
import threading

from atlas_plugin import hookimpl

released = threading.Event()

def wait_in_the_waiting_room():
    released.wait()

def keep_the_interpreter_for_itself():
    (pathlib.Path(__file__).parent / "kept").touch()
    while True:
        ctypes.PyDLL(None).pause()

@hookimpl
def startup():
    threading.Thread(target=wait_in_the_waiting_room, name="patient", daemon=True).start()

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/wait")
    def enter_the_waiting_room(request):
        wait_in_the_waiting_room()

    @routes.get("/v1/atlas/x/release")
    def release(request):
        released.set()

    @routes.get("/v1/atlas/x/keep")
    def keep(request):
        keep_the_interpreter_for_itself()

@hookimpl
def shutdown():
    released.set()
"""

# Its stacks change all the time.
BUSY = """
def deeper(n):
    return 0 if n == 0 else deeper(n - 1)

def work():
    while not released.is_set():
        deeper(30)

for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
"""


@pytest.fixture
def probed(start_server: StartServer, tmp_path: Path) -> Server:
    return start_server(["--atlas-plugin", write_plugin(tmp_path, PLUGIN)])


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as running:
        yield running


def ask(server: Server, name: str) -> None:
    """Ask the plugin, which may never answer."""
    with suppress(httpx.TransportError):
        server.get(f"/v1/atlas/x/{name}")


def test_the_route_shows_all_threads(probed: Server, pool: ThreadPoolExecutor) -> None:
    asked = pool.submit(ask, probed, "wait")
    probed.wait_until(lambda: probed.get(STACKS).text.count("in wait_in_the_waiting_room") == 2)
    answer = probed.get(STACKS)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    stacks = answer.text.split("\n\n")
    (patient,) = [stack for stack in stacks if stack.startswith("thread patient (0x")]
    (waiting,) = [stack for stack in stacks if "in enter_the_waiting_room" in stack]
    assert "in wait_in_the_waiting_room" in patient
    assert waiting.index("in enter_the_waiting_room") < waiting.index("in wait_in_the_waiting_room")
    (asking,) = [stack for stack in stacks if "in stacks" in stack]
    assert asking.startswith("thread of the server (0x")
    ask(probed, "release")
    asked.result()


def test_a_signal_shows_them_while_the_interpreter_is_held(
    probed: Server, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    asked = pool.submit(ask, probed, "keep")
    probed.wait_until((tmp_path / "kept").exists)
    probed.signal(signal.SIGUSR1)
    assert probed.logged("in keep_the_interpreter_for_itself")
    assert probed.logged("in wait_in_the_waiting_room")
    assert f'File "{tmp_path}/probe.py", line ' in probed.log
    # The server serves what needs no Python.
    assert probed.post("/completion", BODIES["/completion"]).status_code == 200
    probed.kill()
    asked.result()


def test_signals_do_not_disturb_threads_that_work(start_server: StartServer, tmp_path: Path) -> None:
    probed = start_server(["--atlas-plugin", write_plugin(tmp_path, PLUGIN + BUSY)])
    for n_seen in range(1, 21):
        probed.signal(signal.SIGUSR1)
        probed.wait_until(lambda n=n_seen: probed.log.count("thread patient (0x") >= n)
        assert probed.post("/completion", BODIES["/completion"]).status_code == 200
    assert probed.stop() == 0


def test_a_signal_changes_nothing_else(probed: Server) -> None:
    probed.signal(signal.SIGUSR1)
    assert probed.logged("thread patient (0x")
    assert probed.post("/v1/chat/completions", BODIES["/v1/chat/completions"]).status_code == 200
    assert probed.get(STACKS).status_code == 200
    assert probed.stop() == 0


def test_where_there_are_tenants_the_stacks_are_for_the_admin(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(key_options(tmp_path), api_key=None)
    assert with_key(server, None).get(STACKS).status_code == 401
    refused = with_key(server, ADA).get(STACKS)
    assert refused.status_code == 403
    assert "to see the stacks, send the key of --atlas-admin-key" in refused.json()["error"]["message"]
    assert "in stacks" in with_key(server, ADMIN).get(STACKS).text
