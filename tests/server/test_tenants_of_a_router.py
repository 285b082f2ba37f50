"""Several API keys before a router: its children keep their owners apart too."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import ASK_CITY, Conversation, chat, memory_options
from tests.server.harness import MODEL, Server
from tests.server.keys import ADA, ADMIN, BEN, with_key

NAME = "first"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    (directory / f"{NAME}.gguf").symlink_to(MODEL)
    return directory


@pytest.fixture(scope="module")
def router(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("router")
    options = ["--models-dir", models, *memory_options(directory), "--api-key", f"{ADA},{BEN}", "-np", "1"]
    with Server(options, {"ATLAS_ADMIN_KEY": ADMIN}, directory=directory, model=None) as running:
        yield running


def names(caller: Server) -> set[str]:
    """What a caller's list of the child has."""
    page = caller.post("/v1/atlas/memory/list", {"model": NAME, "limit": 1000})
    assert page.status_code == 200, page.text
    return {entry["context_id"] for entry in page.json()["data"]["contexts"]}


def test_children_keep_state_apart(router: Server) -> None:
    ada, ben, admin = (with_key(router, key) for key in (ADA, BEN, ADMIN))
    told = Conversation(1)
    first = told.ask(ada, model=NAME, atlas={"session_id": "routed"})
    for caller in (ben, admin):
        assert chat(caller, told.asking(ASK_CITY), model=NAME, atlas={}).reused == 0
    assert chat(ada, told.asking(ASK_CITY), model=NAME, atlas={}).recalls(first)
    ada.wait_until(lambda: "routed" in names(ada))
    assert "routed" not in names(ben)
    assert "routed" in names(admin)
    load = {"context_id": "routed", "model": NAME}
    statuses = [caller.post("/v1/atlas/memory/load", load).status_code for caller in (ada, ben)]
    assert statuses == [200, 404]


def test_only_the_admin_changes_settings(router: Server) -> None:
    settings = {"shutdown_timeout_s": 3}
    for body in ({"settings": settings}, {"settings": settings, "model": NAME}):
        answers = [with_key(router, key).post("/v1/atlas/config", body) for key in (ADA, None)]
        assert [answer.status_code for answer in answers] == [403, 401]
    assert with_key(router, ADMIN).post("/v1/atlas/config", {"settings": settings}).status_code == 200


def test_a_model_that_there_is_not(router: Server) -> None:
    answer = with_key(router, ADA).post("/v1/atlas/memory/list", {"model": "none"})
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "type", "timestamp"}
    assert 400 <= answer.status_code < 500
    assert "none" in error["message"]


def test_no_key_is_shown(router: Server) -> None:
    ada = with_key(router, ADA)
    chat(ada, Conversation(2).messages, model=NAME)
    admin = with_key(router, ADMIN)
    shown = [
        admin.get(path).text for path in ("/models", "/v1/models", "/v1/atlas/config", "/v1/atlas/status")
    ]
    assert not any(key in text for key in (ADA, BEN, ADMIN) for text in [*shown, router.log])


def test_an_admin_key_on_the_command_line_is_refused(
    spawn_server: StartServer, models: Path, tmp_path: Path
) -> None:
    options = ["--models-dir", models, "--api-key", f"{ADA},{BEN}", "--atlas-admin-key", ADMIN]
    server = spawn_server(options, model=None)
    assert server.wait() != 0
    assert "give it in ATLAS_ADMIN_KEY instead" in server.log
    assert ADMIN not in server.log


def test_status_of_a_child_needs_a_key(router: Server) -> None:
    chat(with_key(router, ADA), Conversation(3).messages, model=NAME)
    for path, of_ada in (("status", 200), ("config", 403), ("plugins", 403)):
        for key, status in ((None, 401), (ADA, of_ada), (ADMIN, 200)):
            answer: httpx.Response = with_key(router, key).get(f"/v1/atlas/{path}?model={NAME}")
            assert answer.status_code == status, answer.text
