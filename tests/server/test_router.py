"""Router mode: several models behind one port, each served by a child, all with one memory path."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.completions import BODIES, REQUEST, ROUTES, found, only_atlas
from tests.server.conftest import StartServer
from tests.server.conversations import ASK_CITY, ASK_NAME, COLD, Conversation, chat, memory_options
from tests.server.harness import MODEL, Server, stream_events

FIRST, SECOND = "first", "second"

StartRouter = Callable[..., Server]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of two models that differ a little in their weights."""
    directory = tmp_path_factory.mktemp("models")
    weights = bytearray(MODEL.read_bytes())
    (directory / f"{FIRST}.gguf").write_bytes(weights)
    for at in range(len(weights) - 65536, len(weights), 2):
        weights[at] ^= 1
    (directory / f"{SECOND}.gguf").write_bytes(weights)
    return directory


@pytest.fixture(scope="module")
def router(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A router that keeps both models loaded."""
    directory = tmp_path_factory.mktemp("router")
    options = ["--models-dir", models, *memory_options(directory)]
    with Server(options, directory=directory, model=None) as running:
        yield running


@pytest.fixture
def start_router(start_server: StartServer, models: Path, tmp_path: Path) -> StartRouter:
    """Starts routers of those models with an empty memory; takes more arguments for them."""

    def start(*arguments: str | Path) -> Server:
        return start_server(["--models-dir", models, *memory_options(tmp_path), *arguments], model=None)

    return start


def models_by_name(router: Server) -> dict[str, Any]:
    """The `status` of each model."""
    return {model["id"]: model["status"] for model in router.get("/models").json()["data"]}


def child_of(router: Server, name: str) -> str:
    """URL of the child that serves the model, which must be loaded."""
    status = models_by_name(router)[name]
    assert status["value"] == "loaded"
    arguments = status["args"]
    return f"http://127.0.0.1:{arguments[arguments.index('--port') + 1]}"


def child_memory(router: Server, name: str) -> Any:
    """What the child's own status says about its memory."""
    return httpx.get(f"{child_of(router, name)}/v1/atlas/status").json()["data"]["memory"]


def flush_child(router: Server, name: str) -> None:
    """Wait until all that the child answered before is durable."""
    response = httpx.post(
        f"{child_of(router, name)}/v1/atlas/memory/flush", json={"timeout_s": 30}, timeout=60
    )
    assert response.status_code == 200, response.text


def listens(url: str) -> bool:
    try:
        httpx.get(f"{url}/health")
    except httpx.TransportError:
        return False
    return True


class TestStatus:
    def test_is_that_of_the_router(self, start_router: StartRouter) -> None:
        router = start_router()
        before = router.get("/v1/atlas/status")
        assert {status["value"] for status in models_by_name(router).values()} == {"unloaded"}
        Conversation(0).ask(router, model=FIRST)
        after = router.get("/v1/atlas/status")
        for answer in (before, after):
            assert answer.status_code == 200
            document = answer.json()
            assert (document["status"], document["problems"]) == ("healthy", [])
            assert document["data"]["initialized"] is True
            assert document["data"]["context_pool_size"] == 0
            assert document["data"]["memory"] is None

    def test_children_have_their_own(self, router: Server) -> None:
        for name in (FIRST, SECOND):
            Conversation(1).ask(router, model=name)
            status = httpx.get(f"{child_of(router, name)}/v1/atlas/status").json()["data"]
            assert (status["model"], status["context_pool_size"]) == (name, 2)


class TestAtlasObject:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("path", ROUTES)
    def test_reaches_the_child_and_is_answered(self, router: Server, path: str, stream: bool) -> None:
        body = {**BODIES[path], "model": FIRST, "stream": stream, "atlas": REQUEST}
        answers = [router.post(path, body), httpx.post(child_of(router, FIRST) + path, json=body, timeout=60)]
        assert [answer.status_code for answer in answers] == [200, 200]
        through, direct = (
            only_atlas(stream_events(answer.text) if stream else answer.json()) for answer in answers
        )
        assert through.keys() == direct.keys()
        for key in ("session_id", "memory_layers", "degraded"):
            assert through[key] == direct[key]
        assert (through["session_id"], through["memory_layers"]) == (
            REQUEST["session_id"],
            REQUEST["memory_layers"],
        )

    @pytest.mark.parametrize(
        "atlas",
        [{"memory_layers": 2**64 + 3}, {"batch_size": 3.0}, {"session_id": "é"}, {"ünï": 1}, [], None],
    )
    @pytest.mark.parametrize("stream", [False, True])
    def test_is_refused_as_by_the_child(self, router: Server, atlas: Any, stream: bool) -> None:
        path = "/v1/chat/completions"
        Conversation(2).ask(router, model=FIRST)
        body = {**BODIES[path], "model": FIRST, "stream": stream, "atlas": atlas}
        answers = [router.post(path, body), httpx.post(child_of(router, FIRST) + path, json=body)]
        through, direct = (answer.json()["error"] for answer in answers)
        assert [answer.status_code for answer in answers] == [400, 400]
        assert through["message"] == direct["message"]
        assert through["type"] == direct["type"] == "validation_error"

    @pytest.mark.parametrize("stream", [False, True])
    def test_only_where_asked_for(self, router: Server, stream: bool) -> None:
        answer = router.post(
            "/v1/chat/completions", {**BODIES["/v1/chat/completions"], "model": FIRST, "stream": stream}
        )
        assert answer.status_code == 200
        assert not list(found(stream_events(answer.text) if stream else answer.json(), "atlas"))


class TestMemory:
    def test_models_do_not_mix(self, router: Server) -> None:
        told = Conversation(3)
        first = told.ask(router, model=FIRST)
        flush_child(router, FIRST)
        other = chat(router, told.asking(ASK_CITY), model=SECOND, atlas={})
        assert (other.reused, other.reason) == (0, "no_match")
        assert other.text == chat(router, told.asking(ASK_CITY), model=SECOND, **COLD).text
        assert child_memory(router, FIRST)["root"] != child_memory(router, SECOND)["root"]
        assert told.ask(router, ASK_CITY, model=FIRST).recalls(first)

    def test_outlives_the_child_that_makes_room_for_another_model(self, start_router: StartRouter) -> None:
        router = start_router("--models-max", "1")
        conversations = {FIRST: Conversation(4), SECOND: Conversation(5)}
        earlier = {name: told.ask(router, model=name) for name, told in conversations.items()}
        for question in (ASK_CITY, ASK_NAME):
            for name, told in conversations.items():
                answer = told.ask(router, question, model=name, atlas={})
                assert answer.recalls(earlier[name])
                assert answer.layer in (1, 2)
                assert answer.text == chat(router, told.messages[:-1], model=name, **COLD).text
                earlier[name] = answer

    def test_outlives_kill_9_of_the_router(self, start_router: StartRouter) -> None:
        router = start_router()
        told = Conversation(6)
        first = told.ask(router, model=FIRST)
        flush_child(router, FIRST)
        child = child_of(router, FIRST)
        router.kill()
        router.process = None
        router.wait_until(lambda: not listens(child))
        router.start()
        second = told.ask(router, ASK_CITY, model=FIRST, atlas={})
        assert second.recalls(first)
        assert second.layer in (1, 2)
        assert second.text == chat(router, told.messages[:-1], model=FIRST, **COLD).text


class TestPresetWithoutModel:
    def test_is_an_error_at_once(self, start_server: StartServer, tmp_path: Path) -> None:
        presets = tmp_path / "presets.ini"
        presets.write_text(
            f"version = 1\n\n[nofile]\nc = 2048\n\n[{FIRST}]\nmodel = {MODEL}\n", encoding="utf-8"
        )
        options = ["--models-preset", presets, *memory_options(tmp_path)]
        router = start_server(options, model=None)
        for _ in range(2):
            body = {"model": "nofile", "messages": Conversation(0).asking(ASK_NAME)}
            answer = router.post("/v1/chat/completions", body)
            assert answer.status_code == 500
            assert "nofile" in answer.json()["error"]["message"]
        assert router.logged(
            "the preset 'nofile' names no model: give it one of model, hf-repo and docker-repo"
        )
        status = models_by_name(router)["nofile"]
        assert (status["value"], status["failed"], status["exit_code"]) == ("unloaded", True, 1)
        assert not (tmp_path / "memory/models").exists()
        assert Conversation(0).ask(router, model=FIRST).text
        assert [path.name.partition("-")[0] for path in (tmp_path / "memory/models").iterdir()] == [FIRST]
