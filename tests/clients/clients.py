"""Programs that others wrote work with this server as they are, and go on after it was killed.

`make test-clients` installs them: the SDKs of OpenAI (Python and Node) and Anthropic, OpenAI's Agents SDK and
LangChain. Each script here has a turn before the server is killed and one behind it.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conversations import flush, kill_and_start, memory_options
from tests.server.harness import REPOSITORY, Server

CLIENTS = REPOSITORY / "build-clients"
HERE = Path(__file__).parent
NORA, BORIS = "Your name is Nora.", "Your name is Boris."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("clients")
    with Server([*memory_options(directory), "-np", "2"], directory=directory) as running:
        yield running


def run(server: Server, script: str, turn: str, before: Any = None) -> Any:
    """What it prints, which is JSON. It is given a URL, the turn, and what the turn before printed."""
    program = "node" if script.endswith(".mjs") else CLIENTS / "venv" / "bin" / "python"
    # Node looks for packages beside a script
    place = CLIENTS / script if script.endswith(".mjs") else HERE / script
    if place.parent == CLIENTS:
        place.write_text((HERE / script).read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        [program, place, f"{server.url}/v1", turn, json.dumps(before)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def both_turns(server: Server, script: str) -> Any:
    before = run(server, script, "first")
    flush(server)
    kill_and_start(server)
    return run(server, script, "second", before)


def test_openai(server: Server) -> None:
    named, answer, is_listed, items = both_turns(server, "openai_python.py")
    assert (named, answer, is_listed) == (NORA, BORIS, True)
    assert items == ["message"] * 4


def test_openai_for_node(server: Server) -> None:
    assert both_turns(server, "openai_node.mjs") == [NORA, BORIS]


def test_openai_agents(server: Server) -> None:
    assert both_turns(server, "openai_agents.py") == [NORA, BORIS, 4]


def test_langchain(server: Server) -> None:
    text, reused = both_turns(server, "langchain_chat.py")
    assert text == NORA
    assert reused > 0


def test_anthropic(server: Server) -> None:
    text, reused = both_turns(server, "anthropic_python.py")
    assert text == NORA
    assert reused > 100
