"""Tests of my_plugin, which must be installed: python -m pip install -e '.[test]'"""

from collections.abc import Iterator
from typing import Any

import pytest

from atlas_plugin import CompletionRequest, Request
from atlas_plugin.testing import Application, FakeHost, StartServer

CHAT = CompletionRequest("/v1/chat/completions", "request-1")


@pytest.fixture
def application() -> Iterator[Application]:
    """All that the server runs in Python, without the server."""
    with Application(FakeHost()) as running:
        assert "my_plugin" in [info.name for info in running.plugins.infos()], "install it first"
        yield running


@pytest.mark.parametrize(
    ("body", "expected"),
    [({}, {"max_tokens": 16}), ({"max_tokens": 500}, {"max_tokens": 500})],
    ids=["no length", "a length"],
)
def test_on_request(application: Application, body: dict[str, Any], expected: dict[str, Any]) -> None:
    asked = application.ask("on_request", CHAT, body)
    assert asked.failed == ()
    assert asked.value == expected


def test_route(application: Application) -> None:
    answer = application.handle(Request("GET", "/v1/atlas/x/my_plugin", query={"name": "Ada"}))
    assert answer.status == 200
    assert getattr(answer, "body", None) == b'{"hello":"Ada"}'


def test_in_the_server(atlas_server: StartServer) -> None:
    server = atlas_server()
    assert server.get("/v1/atlas/x/my_plugin").json() == {"hello": "world"}
    chat = {"messages": [{"role": "user", "content": "Tell me a story."}], "ignore_eos": True}
    answer = server.post("/v1/chat/completions", chat)
    assert answer.status == 200, server.log
    assert answer.json()["usage"]["completion_tokens"] == 16
