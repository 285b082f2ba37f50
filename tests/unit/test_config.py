"""GET and POST /v1/atlas/config, and the hook that follows a change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atlas_plugin import Request, Response
from atlas_plugin.testing import Application, FakeHost

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]

PLUGIN = """
import logging
from atlas_plugin import hookimpl

@hookimpl
def reload(changed):
    logging.info("reloaded %s", dict(changed))
    if "verbose_logging" in changed:
        raise ValueError("not that")
"""


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    (tmp_path / "mine.py").write_text(PLUGIN)
    return FakeHost(
        memory_save_path=str(tmp_path / "memory"), admin_key="secret", plugins=[str(tmp_path / "mine.py")]
    )


def change(application: Application, body: bytes, is_admin: bool = True) -> tuple[int, Any]:
    response = application.handle(Request("POST", "/v1/atlas/config", body=body, is_admin=is_admin))
    assert isinstance(response, Response)
    return response.status, msgspec.json.decode(response.body)


def shown(application: Application, call: Call) -> dict[str, Any]:
    document = msgspec.json.decode(call(application, "GET", "/v1/atlas/config").body)
    return {entry["name"]: entry for entry in document["data"]["settings"]}


def test_get_shows_all_but_secrets(host: FakeHost, start: Start, call: Call) -> None:
    settings = shown(start(host), call)
    assert list(settings) == [entry["name"] for entry in host.entries]
    assert (settings["admin_key"]["value"], settings["admin_key"]["origin"]) == ("***", "flag")
    assert (settings["max_sessions"]["reload"], settings["plugins"]["reload"]) == ("live", "restart")


def test_a_change_is_followed(host: FakeHost, start: Start, call: Call) -> None:
    application = start(host)
    code, document = change(application, b'{"settings": {"max_state_bytes": 20, "session_ttl_s": 5}}')
    assert code == 200
    assert document == {
        "status": "success",
        "data": {"changed": {"max_state_bytes": 20, "session_ttl_s": 5}},
    }
    assert "reloaded {'max_state_bytes': 20, 'session_ttl_s': 5}" in host.log_text
    entry = shown(application, call)["max_state_bytes"]
    assert (entry["value"], entry["origin"]) == (20, "request")
    save = msgspec.json.encode({"context_id": "a", "state": {"a": "b" * 20}})
    refused = call(application, "POST", "/v1/atlas/memory/save", body=save)
    assert refused.status == 413
    assert b"limit for a state is 20 bytes" in refused.body


def test_all_problems_are_named_and_nothing_changes(host: FakeHost, start: Start, call: Call) -> None:
    application = start(host)
    before = shown(application, call)
    body = b'{"settings": {"max_sessions": 5, "nonsense": 1, "plugins": [], "session_ttl_s": "a"}}'
    code, document = change(application, body)
    assert (code, document["error"]["type"]) == (400, "validation_error")
    assert document["error"]["message"] == (
        "Validation error in field 'settings.nonsense': there is no such setting; "
        "field 'settings.plugins': it needs a restart; "
        "field 'settings.session_ttl_s': value must be a float"
    )
    assert shown(application, call) == before
    assert "reloaded" not in host.log_text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "settings"),
        (b"{", "body"),
        (b'{"settings": []}', "settings"),
        (b'{"settings": {}}', "settings"),
        (b'{"max_sessions": 5}', "max_sessions"),
    ],
)
def test_bad_bodies(host: FakeHost, start: Start, body: bytes, field: str) -> None:
    code, document = change(start(host), body)
    assert code == 400
    assert f"in field '{field}'" in document["error"]["message"]


def test_only_the_admin_may(host: FakeHost, start: Start) -> None:
    code, document = change(start(host), b"not even read", is_admin=False)
    assert (code, document["error"]["type"]) == (403, "authentication_error")
    assert document["error"]["message"] == (
        "to change settings, send the key of --atlas-admin-key or ATLAS_ADMIN_KEY"
    )


def test_a_plugin_that_fails_in_reload(host: FakeHost, start: Start, call: Call) -> None:
    application = start(host)
    assert change(application, b'{"settings": {"verbose_logging": true}}')[0] == 200
    status = msgspec.json.decode(call(application, "GET", "/v1/atlas/status").body)
    assert status["problems"] == ["plugin 'mine' fails in reload: ValueError: not that"]
    assert change(application, b'{"settings": {"max_sessions": 5}}')[0] == 200
    assert msgspec.json.decode(call(application, "GET", "/v1/atlas/status").body)["status"] == "healthy"
