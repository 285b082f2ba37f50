"""Whether state of another build is used after a start, and only where it is what this one would compute."""

import shutil
from pathlib import Path
from typing import Any

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    Conversation,
    chat,
    cold_chat,
    flush,
    kill_and_start,
    memory_options,
    memory_status,
    wait_for_memory,
)
from tests.server.gguf_files import write_wide_model
from tests.server.harness import Server
from tests.server.root_records import leave_wrong_state, make_state_anothers


def others(server: Server) -> Any:
    return memory_status(server)["state_of_others"]


def test_a_restart_after_an_upgrade_is_as_any(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(memory_options(tmp_path))
    told = Conversation(0)
    first, root = told.ask(server), memory_status(server)["root"]
    flush(server)
    server.kill()
    make_state_anothers(tmp_path)
    server.start()
    answer = chat(server, told.asking(ASK_CITY), atlas={})
    assert answer.recalls(first)
    assert answer.text == cold_chat(server, told.asking(ASK_CITY)).text
    assert memory_status(server)["root"] == root
    said = others(server)["proof"]
    assert "build=b1-" in said
    assert "is used" in said
    assert server.logged("is used: log-probabilities of likely tokens differ by")
    kill_and_start(server)  # and is known from now on
    assert others(server) == {"is_tried": False, "proof": None, "only": None}
    assert chat(server, told.asking(ASK_CITY)).recalls(first)


def test_state_that_is_not_the_same_is_left_alone(start_server: StartServer, tmp_path: Path) -> None:
    """A model of nearly the same weights stands for a build that computes otherwise."""
    told = Conversation(0)

    def serve(model: Path) -> str:
        server = start_server(memory_options(tmp_path), model=model)
        told.ask(server)
        root: str = memory_status(server)["root"]
        flush(server)
        server.kill()
        return root

    wrong = leave_wrong_state(tmp_path, serve)
    server = start_server(memory_options(tmp_path))
    answer = chat(server, told.asking(ASK_CITY))
    assert answer.reused == 0
    assert "is left alone: log-probabilities of likely tokens differ by" in others(server)["proof"]
    own = memory_status(server)["root"]
    assert own != wrong
    flush(server)
    kill_and_start(server)  # and is not tried again
    assert others(server)["proof"] is None
    assert memory_status(server)["root"] == own
    assert chat(server, told.asking(ASK_CITY)).recalls(answer)


def test_state_of_other_settings_is_told_of(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(memory_options(tmp_path))
    for number in range(2):
        Conversation(number).ask(server)
    flush(server)
    server.kill()
    server = start_server([*memory_options(tmp_path), "--cache-type-k", "q8_0"])
    wait_for_memory(server)
    server.wait_until(lambda: others(server)["only"])
    assert "2 conversations of this model with k=f16" in others(server)["only"]
    assert others(server)["only"] in server.get("/v1/atlas/status").json()["notices"]
    server.kill()
    other = shutil.copy(write_wide_model(tmp_path / "other.gguf", 2048), tmp_path / "renamed.gguf")
    server = start_server(memory_options(tmp_path), model=other)
    server.wait_until(lambda: others(server)["only"])
    assert "2 conversations of demo-2m-f16.gguf" in others(server)["only"]
