"""What plugins ask of the server from inside: host.complete, host.tokenize, host.ask, host.memory."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import memory_options
from tests.server.harness import MODEL, Server, write_plugin
from tests.server.keys import ADA, ADMIN, BEN, key_options, with_key

# POST /v1/atlas/x/call with {"call": "complete", "with": [...], "fields": {...}} calls that of the host.
PLUGIN = """
import time
from functools import reduce

from atlas_plugin import AskError, Modify, hookimpl

state = {"asked": 0, "at_startup": None, "hooked": 0, "ended": []}


@hookimpl
def startup(host):
    state["host"] = host
    try:
        host.complete("Hi")
    except AskError as error:
        state["at_startup"] = [error.answered, error.reason]


@hookimpl(deadline_ms=60000, fails="closed")
def on_request(request, body):
    state["hooked"] += 1
    if "x-ask" not in request.headers:
        return None
    answer = state["host"].complete(request.headers["x-ask"], max_tokens=4)
    return Modify({**body, "user": answer["choices"][0]["message"]["content"]})


@hookimpl
def on_finished(request, record):
    state["ended"].append(record["route"])


@hookimpl
def register_routes(routes):
    @routes.post("/v1/atlas/x/call")
    def call(request):
        wanted = request.json()
        function = reduce(getattr, wanted["call"].split("."), state["host"])
        fields = wanted.get("fields", {})
        if "tenant" in fields:
            fields["tenant"] = request.tenant
        began = time.monotonic()
        try:
            return {"answer": function(*wanted.get("with", []), **fields)}
        except AskError as error:
            return {"refused": error.answered, "reason": error.reason, "seconds": time.monotonic() - began}
        except ValueError as error:
            return {"wrong": str(error)}

    @routes.get("/v1/atlas/x/state")
    def shown(request):
        return {name: value for name, value in state.items() if name != "host"}
"""

QUESTION = [{"role": "user", "content": "What is my name?"}]
EXACT = {"temperature": 0, "max_tokens": 8}


def call(server: Server, what: str, *arguments: Any, **fields: Any) -> dict[str, Any]:
    body = {"call": what, "with": arguments, "fields": fields}
    answer: dict[str, Any] = server.post("/v1/atlas/x/call", body, timeout=120).json()
    return answer


def state(server: Server) -> dict[str, Any]:
    shown: dict[str, Any] = server.get("/v1/atlas/x/state").json()
    return shown


def content(answer: dict[str, Any]) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    directory = tmp_path_factory.mktemp("plugin")
    return ["--atlas-plugin", write_plugin(directory, PLUGIN)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, options: list[str | Path]) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    with Server([*options, *memory_options(directory)], directory=directory) as running:
        yield running


class TestAsking:
    def test_a_completion_is_as_a_clients(self, server: Server) -> None:
        told = server.post("/v1/chat/completions", {"messages": QUESTION, **EXACT}).json()
        inside = call(server, "complete", QUESTION, **EXACT)["answer"]
        assert content(inside) == content(told)
        assert inside["usage"]["prompt_tokens"] == told["usage"]["prompt_tokens"]

    def test_a_text_is_a_message(self, server: Server) -> None:
        as_text = call(server, "complete", "What is my name?", **EXACT)["answer"]
        assert content(as_text) == content(call(server, "complete", QUESTION, **EXACT)["answer"])

    def test_tokens_and_back(self, server: Server) -> None:
        tokens = call(server, "tokenize", "Hello, Ada!")["answer"]
        assert tokens == server.post("/tokenize", {"content": "Hello, Ada!"}).json()["tokens"]
        assert call(server, "detokenize", tokens)["answer"] == "Hello, Ada!"

    def test_other_routes(self, server: Server) -> None:
        [model] = call(server, "ask", "/v1/models")["answer"]["data"]
        assert model["id"] == server.get("/v1/models").json()["data"][0]["id"]
        newest = call(server, "ask", "/v1/atlas/requests?since=999999")["answer"]
        assert newest["data"]["requests"] == []
        assert "atlas_uptime_seconds" in call(server, "ask", "/v1/atlas/metrics/prometheus")["answer"]

    def test_memory_of_a_session(self, server: Server) -> None:
        """What a plugin computes in a session, a client goes on from."""
        said = [{"role": "user", "content": "My name is Ada. " * 30}]
        atlas = {"session_id": "filled-ahead"}
        call(server, "complete", said, max_tokens=1, atlas=atlas)
        body = {"messages": said, "max_tokens": 1, "atlas": atlas}
        answer = server.post("/v1/chat/completions", body).json()
        assert answer["timings"]["cache_n"] > answer["usage"]["prompt_tokens"] * 0.9

    def test_saved_contexts(self, server: Server) -> None:
        assert call(server, "memory.save", "notes", {"likes": ["tea"]}) == {"answer": None}
        loaded = server.post("/v1/atlas/memory/load", {"context_id": "notes"}).json()["data"]
        assert call(server, "memory.load", "notes")["answer"] == loaded
        assert loaded["state"] == {"likes": ["tea"]}
        assert "notes" in str(call(server, "memory.list", limit=5)["answer"])
        assert call(server, "memory.delete", "notes")["answer"] > 0
        assert call(server, "memory.load", "notes")["refused"] == 404
        assert call(server, "memory.flush")["answer"]["entries"] >= 0

    def test_what_the_server_refuses(self, server: Server) -> None:
        for arguments, status, reason in (
            (("/v1/nowhere",), 404, "there is no GET /v1/nowhere"),
            (("/v1/chat/completions", {"messages": 3}), 400, "messages"),
            (("/v1/atlas/nowhere",), 404, "route"),
            (("/v1/atlas/metrics/stream",), 400, "this is a stream"),
        ):
            answer = call(server, "ask", *arguments)
            assert answer["refused"] == status
            assert reason in answer["reason"]

    def test_what_cannot_be_asked(self, server: Server) -> None:
        assert "leave `stream` out" in call(server, "complete", "Hi", stream=True)["wrong"]
        assert "timeout_s must be" in call(server, "complete", "Hi", timeout_s=0)["wrong"]


class TestHooks:
    def test_a_hook_asks_and_is_not_asked_about_it(self, server: Server) -> None:
        hooked = state(server)["hooked"]
        body = {"messages": QUESTION, "max_tokens": 2}
        assert server.post("/v1/chat/completions", body, headers={"X-Ask": "Hi"}).status_code == 200
        assert state(server)["hooked"] == hooked + 1

    def test_none_is_asked_about_a_plugins_own(self, server: Server) -> None:
        before = state(server)
        newest = server.get("/v1/atlas/requests").json()["data"]["last"]
        call(server, "complete", "Hi", max_tokens=1)
        assert state(server) == before
        [record] = server.get(f"/v1/atlas/requests?since={newest}").json()["data"]["requests"]
        assert record["route"] == "chat"


class TestLimits:
    def test_before_the_model_is_loaded(self, server: Server) -> None:
        assert state(server)["at_startup"] == [503, "the model is not loaded yet"]

    def test_too_late(self, server: Server) -> None:
        """What was asked is given up, and its slot is free for others."""
        answer = call(server, "complete", "Once", timeout_s=0.05, max_tokens=-1, ignore_eos=True)
        assert (answer["refused"], answer["reason"]) == (503, "the server did not answer this in time")
        server.wait_until(lambda: not any(slot["is_processing"] for slot in server.get("/slots").json()))

    def test_calls_at_once(self, start_server: StartServer, options: list[str | Path]) -> None:
        server = start_server([*options, "--atlas-plugin-calls", "1"])
        endless = threading.Thread(
            target=call,
            args=(server, "complete", "Once"),
            kwargs={"timeout_s": 20, "max_tokens": -1, "ignore_eos": True},
        )
        endless.start()
        server.wait_until(lambda: any(slot["is_processing"] for slot in server.get("/slots").json()))
        assert call(server, "complete", "Hi", timeout_s=0.2)["refused"] == 503
        assert server.post("/completion", {"prompt": "Hi", "n_predict": 1}).status_code == 200
        assert server.post("/v1/atlas/config", {"settings": {"plugin_calls": 2}}).status_code == 200
        assert content(call(server, "complete", "Hi", max_tokens=2)["answer"]) is not None
        server.signal(signal.SIGTERM)
        endless.join()

    def test_rates_are_for_clients(self, start_server: StartServer, options: list[str | Path]) -> None:
        server = start_server([*options, "--api-key", "k", "--atlas-key-requests-per-s", "0.001"])
        server = with_key(server, "k")
        for _ in range(3):
            assert "answer" in call(server, "complete", "Hi", max_tokens=1)
        assert server.post("/completion", {"prompt": "Hi", "n_predict": 1}).status_code == 200
        assert server.post("/completion", {"prompt": "Hi", "n_predict": 1}).status_code == 429


def test_memory_of_a_tenant(start_server: StartServer, options: list[str | Path], tmp_path: Path) -> None:
    """A plugin says whose memory it uses."""
    server = start_server([*options, *key_options(tmp_path)])
    ada, ben, admin = (with_key(server, key) for key in (ADA, BEN, ADMIN))
    ada.post("/v1/atlas/memory/save", {"context_id": "notes", "state": {"likes": "tea"}})
    assert call(ada, "memory.load", "notes", tenant="")["answer"]["state"] == {"likes": "tea"}
    assert call(ben, "memory.load", "notes", tenant="")["refused"] == 404
    assert call(admin, "memory.load", "notes")["refused"] == 404
    call(ben, "complete", QUESTION, tenant="", max_tokens=1, atlas={"session_id": "bens"})
    assert call(ben, "memory.load", "bens", tenant="")["answer"]["session"]["tokens"] > 0
    assert call(ada, "memory.load", "bens", tenant="")["refused"] == 404


def test_the_end_of_the_server(start_server: StartServer, options: list[str | Path]) -> None:
    """It does not wait for a plugin that asks for something endless, which is told."""
    server = start_server(options)
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        answers.append(call(server, "complete", "Once", max_tokens=-1, ignore_eos=True))

    asking = threading.Thread(target=ask)
    asking.start()
    server.wait_until(lambda: any(slot["is_processing"] for slot in server.get("/slots").json()))
    server.signal(signal.SIGTERM)
    asking.join()
    assert server.wait() == 0
    assert answers[0]["refused"] == 503


def test_a_sleeping_server_wakes(start_server: StartServer, options: list[str | Path]) -> None:
    server = start_server([*options, "--sleep-idle-seconds", "1"])
    server.wait_until(lambda: server.get("/props").json()["is_sleeping"], timeout=30)
    assert "answer" in call(server, "complete", "Hi", max_tokens=1)


def test_a_router_has_no_model(start_server: StartServer, options: list[str | Path], tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "demo.gguf").symlink_to(MODEL)
    server = start_server([*options, "--models-dir", models], model=None)
    assert "a router has no model" in call(server, "complete", "Hi")["reason"]
    body = {"call": "complete", "with": ["Hi"], "fields": {"max_tokens": 1}, "model": "demo"}
    assert "answer" in server.post("/v1/atlas/x/call", body, timeout=120).json()
