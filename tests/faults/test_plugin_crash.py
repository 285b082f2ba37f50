"""A plugin with a fault in its native code takes the process along, and nothing that was answered."""

import signal
from pathlib import Path

import httpx
import pytest

from tests.server.conformance import data_of, operate
from tests.server.conftest import StartServer
from tests.server.conversations import ASK_CITY, Conversation, flush, kill_and_start, memory_options
from tests.server.harness import write_plugin

CRASHING = """
import ctypes
from atlas_plugin import hookimpl

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/crash")
    def crash(request):
        ctypes.string_at(0)
"""


def test_segmentation_fault(start_server: StartServer, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, CRASHING)
    server = start_server([*memory_options(tmp_path), "--atlas-plugin", plugin])
    told = Conversation(1)
    first = told.ask(server)
    flush(server)
    assert operate(server, "save", {"context_id": "saved", "state": {"n": 1}}).status_code == 200
    kept = {"session_id": "kept", "history": "server"}
    question = {"role": "user", "content": "My name is Nora."}
    answer = server.post("/v1/chat/completions", {"messages": [question], "max_tokens": 4, "atlas": kept})
    assert answer.json()["atlas"]["degraded"] is False

    with pytest.raises(httpx.TransportError):
        server.get("/v1/atlas/x/crash")
    assert server.wait() == -signal.SIGSEGV

    kill_and_start(server)
    assert told.ask(server, ASK_CITY).recalls(first)
    assert data_of(operate(server, "load", {"context_id": "saved"}))["state"] == {"n": 1}
    session = data_of(operate(server, "load", {"context_id": "kept"}))["session"]
    assert session["conversation_history"] == [question, answer.json()["choices"][0]["message"]]
