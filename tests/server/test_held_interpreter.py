"""Metrics and status while a plugin's C code keeps the interpreter lock, and where there is no Python."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.server.completions import BODIES
from tests.server.conftest import StartServer
from tests.server.harness import Server
from tests.server.keys import ADA, ADMIN, key_options, with_key
from tests.server.lifecycle import in_background, plugin_options

STATUS = "/v1/atlas/status"
PROMETHEUS = "/v1/atlas/metrics/prometheus"
LATE = "Python did not answer within 50 ms, so what it adds is missing"
N_SCRAPES = 20
PATIENCE = ("--atlas-python-patience-ms", "50")

PLUGIN = """
@hookimpl
def register_routes(routes):
    library = ctypes.PyDLL(str(HERE / "hold_interpreter.so"))

    @routes.get("/v1/atlas/x/hold")
    def hold(request):
        library.hold(bytes(HERE / "entered"), bytes(HERE / "fifo"))
        return "released"
"""


@dataclass(frozen=True)
class Held:
    """A server with a plugin that keeps the interpreter lock until `release` is called."""

    server: Server
    answers: list[httpx.Response | None]
    """What the call that holds the lock has answered; empty until it was released."""
    release: Callable[[], None]


Hold = Callable[..., Any]


@pytest.fixture
def hold(start_server: StartServer, tmp_path: Path) -> Iterator[Hold]:
    """Start a server with these options, and hold its interpreter lock."""
    source = Path(__file__).with_name("hold_interpreter.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "hold_interpreter.so", source], check=True)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def release() -> None:
        # fails where nobody waits any more
        with suppress(OSError):
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))

    @contextmanager
    def holding(*options: str | Path, key: str | None = None) -> Iterator[Held]:
        server = start_server([*plugin_options(tmp_path, PLUGIN), *PATIENCE, *options], api_key=key)
        with ExitStack() as stack:
            answers = stack.enter_context(in_background(server, "/v1/atlas/x/hold", key=key))
            stack.callback(release)
            server.wait_until((tmp_path / "entered").exists)
            yield Held(server, answers, release)

    yield holding


def samples(text: str) -> dict[tuple[str, str], float]:
    """The samples by name and value of the label `for`, or nothing."""
    return {
        (one.name, one.labels.get("for", "")): one.value
        for family in parse_text(text)
        for one in family.samples
    }


def n_threads(server: Server) -> int:
    assert server.process is not None
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


def test_all_answer_while_the_lock_is_held(hold: Hold) -> None:
    with hold("--metrics") as held:
        server: Server = held.server
        text = server.get(PROMETHEUS).text
        before = n_threads(server)
        for number in range(1, N_SCRAPES):
            status = server.get(STATUS).json()
            stock = server.get("/metrics").text
            text = server.get(PROMETHEUS).text
            assert samples(text)["atlas_python_late_total", "status"] == number
            assert samples(text)["atlas_python_late_total", "metrics"] == 2 * number + 1
            assert "llamacpp:requests_processing" in stock
            for found in (stock, text):
                assert "atlas_requests_total{" in found
                assert "atlas_time_to_first_token_seconds_bucket{" in found
                assert "atlas_hook_calls_total" not in found
        # each of these would have one of its own
        assert n_threads(server) - before < N_SCRAPES

        assert (status["status"], status["problems"], status["notices"]) == ("degraded", [LATE], [])
        assert status["data"]["initialized"] is True
        assert status["data"]["context_pool_size"] > 0
        assert status["data"]["memory_persistence"] is None

        answer = server.get(PROMETHEUS, headers={"Accept": "text/html, Application/OpenMetrics-Text ; q=1"})
        assert answer.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        names = {family.name for family in parse_openmetrics(answer.text)}  # type: ignore[no-untyped-call]
        assert "atlas_requests" in names
        assert "atlas_hook_calls" not in names

        chat = "/v1/chat/completions"
        assert server.post(chat, {**BODIES[chat], "atlas": {}}).status_code == 200
        assert samples(server.get(PROMETHEUS).text)["atlas_pool_leases_total", ""] == 1
        assert held.answers == []

        held.release()
        server.wait_until(lambda: "atlas_hook_calls_total" in server.get(PROMETHEUS).text)
        server.wait_until(lambda: server.get(STATUS).json()["status"] == "healthy")
        assert "atlas_hook_calls_total" in server.get("/metrics").text
    assert [answer and answer.status_code for answer in held.answers] == [200]


def test_a_tenant_gets_no_more_than_else(hold: Hold, tmp_path: Path) -> None:
    with hold(*key_options(tmp_path), key=ADMIN) as held:
        admin = held.server.get(STATUS).json()
        tenant = with_key(held.server, ADA).get(STATUS).json()
        assert "path" in admin["data"]["memory"]
        assert (tenant["status"], tenant["problems"], tenant["notices"]) == ("degraded", [LATE], [])
        assert str(tmp_path) not in str(tenant)
        assert held.answers == []
        held.release()
        held.server.wait_until(lambda: held.answers)
        in_time = with_key(held.server, ADA).get(STATUS).json()
        assert tenant["data"].keys() == in_time["data"].keys() - {"python"}
        assert tenant["data"]["memory"] == in_time["data"]["memory"] == {}
        assert with_key(held.server, None).get(STATUS).status_code == 401


def test_the_end_with_a_call_that_is_late(hold: Hold) -> None:
    with hold("--atlas-shutdown-timeout", "0.5") as held:
        for path in (STATUS, PROMETHEUS):
            assert held.server.get(path).status_code == 200
        held.server.signal(signal.SIGTERM)
        assert held.server.wait() == 0
        # its own, and the one that is late
        assert held.server.logged("2 Python call(s) did not end within 0.5 s; going on without them")
    assert held.answers == [None]


def test_without_python(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(["--metrics", "--atlas-python-home", tmp_path / "nowhere"])
    for path in ("/metrics", PROMETHEUS):
        answer = server.get(path)
        assert answer.status_code == 200
        assert samples(answer.text)["atlas_python_late_total", "metrics"] == 0
    assert server.get("/v1/atlas/metrics").status_code == 503
