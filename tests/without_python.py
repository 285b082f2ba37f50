"""A build with -DATLAS_PYTHON=OFF: `make test-without-python` makes it, and runs this.

It keeps KV of conversations, and says of all else that it was built without Python. The name is not that of
a test, so that `make test` leaves it out.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer, start_server
from tests.server.harness import BINARY, MODEL, Server

__all__ = ["start_server"]

PROGRAMS = BINARY.parent
REASON = "Python is not running: this build has none, it was configured with -DATLAS_PYTHON=OFF"
QUESTION = {
    "prompt": "".join(f"word {number} " for number in range(200)),
    "n_predict": 16,
    "temperature": 0,
    "atlas": {"session_id": "anna"},
}
NEED_PYTHON = [
    ("GET", "/v1/atlas/plugins"),
    ("GET", "/v1/atlas/config"),
    ("POST", "/v1/atlas/config"),
    ("GET", "/v1/atlas/metrics"),
    ("GET", "/v1/atlas/metrics/stream"),
    ("GET", "/v1/atlas/debug/stacks"),
    ("GET", "/v1/atlas/requests"),
    ("GET", "/v1/atlas/dashboard"),
    ("GET", "/v1/atlas/openapi.json"),
    ("POST", "/v1/atlas/memory/save"),
    ("POST", "/v1/atlas/memory/load"),
    ("POST", "/v1/atlas/memory/list"),
    ("POST", "/v1/atlas/memory/delete"),
    ("POST", "/v1/atlas/memory/pin"),
    ("POST", "/v1/atlas/memory/unpin"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = [
            (program, case)
            for program in ("atlas-unit-test", "atlas-api-test")
            for case in subprocess.check_output([PROGRAMS / program, "--list"], text=True).split()
        ]
        metafunc.parametrize(("program", "case"), cases)


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> Server:
    return start_server(["--atlas-memory-path", tmp_path / "memory"])


def run(program: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAMS / program, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answer(server: Server) -> dict[str, Any]:
    response = server.post("/completion", QUESTION)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def test_nothing_of_python_is_there() -> None:
    assert not (PROGRAMS / "libatlas-python.so").exists()
    for name in ("llama-server", "libatlas.so"):
        loaded = subprocess.check_output(["ldd", PROGRAMS / name], text=True)
        assert "libllama" in loaded
        assert "libpython" not in loaded


def test_case(program: str, case: str, tmp_path: Path) -> None:
    done = run(program, case, tmp_path, ATLAS_TEST_MODEL=str(MODEL))
    assert done.returncode == 0, done.stderr


def test_a_conversation_goes_on_after_kill_9(server: Server) -> None:
    before = answer(server)
    assert before["atlas"]["reused_tokens"] == 0
    assert before["atlas"]["reason"] == "sessions are not stored: Python is not running"
    assert server.post("/v1/atlas/memory/flush").status_code == 200
    server.kill()
    server.start()
    after = answer(server)
    assert after["content"] == before["content"]
    assert after["atlas"]["reused_tokens"] > 0
    assert after["atlas"]["layer"] > 0


def test_the_status_says_why_there_is_no_python(server: Server) -> None:
    status = server.get("/v1/atlas/status")
    assert status.status_code == 200
    assert REASON in status.text
    assert server.logged("going on without Python")
    assert "atlas_uptime_seconds" in server.get("/v1/atlas/metrics/prometheus").text


@pytest.mark.parametrize(("method", "path"), NEED_PYTHON, ids=lambda value: value)
def test_routes_that_need_python_say_so(server: Server, method: str, path: str) -> None:
    response = server.client.request(method, path, json={} if method == "POST" else None)
    assert response.status_code == 503
    error = response.json()["error"]
    assert (error["code"], error["type"], error["message"]) == (503, "service_unavailable", REASON)


def test_history_is_refused(server: Server) -> None:
    body = {
        "messages": [{"role": "user", "content": "Hi"}],
        "atlas": {"session_id": "a", "history": "server"},
    }
    response = server.post("/v1/chat/completions", body)
    assert response.status_code == 503
    assert "Python" in response.json()["error"]["message"]


def test_required_python_does_not_start(tmp_path: Path) -> None:
    done = run("llama-server", "-m", MODEL, "--port", "0", "--atlas-require-python")
    assert done.returncode == 1
    assert "--atlas-require-python is given: not starting the server" in done.stdout + done.stderr


def test_the_examples_run(tmp_path: Path) -> None:
    for program, *arguments in (("simple",), ("advanced", tmp_path / "memory")):
        done = run(f"atlas-example-{program}", MODEL, *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    assert (tmp_path / "memory/blocks").is_dir()
    keeps_messages = run("atlas-example-desktop", MODEL, tmp_path / "other", "Hello!")
    assert keeps_messages.returncode == 1
    assert "Python, which keeps them, is not running" in keeps_messages.stderr
