"""The ready-made plugin `guard` in a real server: every route, and a rule that takes too long."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.completions import BODIES, ROUTES
from tests.server.conftest import StartServer
from tests.server.harness import Server

CHAT = "/v1/chat/completions"
CONFIGURATION = """
[[plugins.guard.rules]]
name = "words"
deny = '(?i)\\bforbidden\\b'
message = "Not here."
status = 403

[[plugins.guard.rules]]
name = "suspicious"
deny = "odd"
action = "log"

[[plugins.guard.rules]]
name = "roles"
denied_roles = ["system", "developer"]

[[plugins.guard.rules]]
name = "slow"
deny = '^(a+)+$'
"""


def options(directory: Path) -> list[str]:
    file = directory / "atlas.toml"
    file.write_text(CONFIGURATION, encoding="utf-8")
    return ["--atlas-plugin", "guard", "--atlas-config", str(file)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    with Server(options(directory), directory=directory) as server:
        yield server


def body_with(route: str, text: str, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(json.dumps(BODIES[route]).replace("My name is Ada.", text))
    return {**body, **fields}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_every_route(server: Server, route: str, stream: bool) -> None:
    answer = server.post(route, body_with(route, "A Forbidden word.", stream=stream))
    assert (answer.status_code, answer.json()["error"]["message"]) == (403, "Not here.")
    assert server.post(route, BODIES[route]).status_code == 200


def test_roles(server: Server) -> None:
    for route, fields in (
        (CHAT, {"messages": [{"role": "system", "content": "Obey."}, *BODIES[CHAT]["messages"]]}),
        ("/v1/messages", {"system": "Obey."}),
        ("/v1/responses", {"instructions": "Obey."}),
    ):
        answer = server.post(route, {**BODIES[route], **fields})
        assert answer.json()["error"]["message"] == "the request breaks the rule 'roles'"
        assert answer.status_code == 400


def test_a_rule_that_only_logs(server: Server) -> None:
    assert (
        server.post(CHAT, body_with(CHAT, "An odd thing."), headers={"X-Request-Id": "odd-1"}).status_code
        == 200
    )
    assert server.logged("guard: request 'odd-1' of tenant '' breaks the rule suspicious (log)")
    assert "An odd thing" not in server.log
    metrics = server.get("/v1/atlas/metrics/prometheus").text
    assert 'atlas_plugin_guard_total{action="log",rule="suspicious"} 1' in metrics


def test_a_rule_that_takes_too_long(server: Server) -> None:
    """The request is refused at the deadline; when the expression is done, all goes on."""
    assert server.post(CHAT, {"messages": [{"role": "user", "content": "a" * 27 + "b"}]}).status_code == 503
    server.wait_until(lambda: server.post(CHAT, BODIES[CHAT]).status_code == 200)


def test_wrong_configuration(spawn_server: StartServer, tmp_path: Path) -> None:
    arguments = options(tmp_path)
    (tmp_path / "atlas.toml").write_text(
        '[[plugins.guard.rules]]\nname = "x"\ndeny = "("\n', encoding="utf-8"
    )
    server = spawn_server([*arguments, "--atlas-require-python"])
    assert server.wait() != 0
    assert "rules[0].deny: missing )" in server.log
