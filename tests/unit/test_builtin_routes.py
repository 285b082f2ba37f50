"""The routes of the plugins that come with ATLAS: status, plugins, config."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import atlas_plugin
from atlas_plugin import Response
from atlas_plugin.testing import Application, FakeHost
from tests.builtins import BUILTIN

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]


def document(response: Response) -> Any:
    assert response.status == 200
    return msgspec.json.decode(response.body)


class TestBuiltinRoutes:
    def test_status(self, start: Start, call: Call, tmp_path: Path) -> None:
        application = start(FakeHost(memory_save_path=str(tmp_path / "memory")))
        status = document(call(application, "GET", "/v1/atlas/status"))
        assert status["status"] == "healthy"
        assert status["problems"] == []
        data = status["data"]
        assert data["initialized"] is True
        assert data["context_pool_size"] == 4
        assert data["uptime_seconds"] == 1.5
        assert data["memory_persistence"] is True
        assert data["python"]["prefix"] == sys.prefix
        assert data["plugins"] == {"active": len(BUILTIN), "failed": 0}

    def test_plugins(self, start: Start, call: Call) -> None:
        plugins = document(call(start(FakeHost()), "GET", "/v1/atlas/plugins"))["data"]["plugins"]
        assert [plugin["name"] for plugin in plugins] == BUILTIN
        assert plugins[0] == {
            "name": "status",
            "source": "builtin",
            "location": "atlas_plugin.builtin.status",
            "version": atlas_plugin.__version__,
            "explicit": False,
            "state": "active",
            "error": None,
            "routes": ["GET /v1/atlas/status"],
            "hooks": ["register_routes", "startup"],
            "hook_failures": {},
            "request_hooks": [],
            "tiers": [],
            "description": "The server's own facts, and what the plugins report.",
        }

    def test_config_hides_secrets(self, start: Start, call: Call) -> None:
        host = FakeHost()
        secrets = [
            {"name": "set", "secret": True, "value": "x"},
            {"name": "unset", "secret": True, "value": ""},
        ]
        host.entries += secrets
        response = call(start(host), "GET", "/v1/atlas/config")
        settings = document(response)["data"]["settings"]
        assert [setting["value"] for setting in settings[-2:]] == ["***", ""]
        assert settings[0] == host.entries[0]
        assert host.entries[-2]["value"] == "x"

    def test_settings_that_do_not_fit(self) -> None:
        settings = FakeHost(max_state_bytes=True, plugins=None).settings()
        assert settings.texts("plugins") == []
        with pytest.raises(TypeError, match="max_state_bytes is bool, not int"):
            settings.integer("max_state_bytes")
        with pytest.raises(TypeError, match="max_state_bytes is bool, not float"):
            settings.number("max_state_bytes")
        assert settings.number("session_ttl_s") == 86400.0
        with pytest.raises(KeyError, match="no setting nonsense"):
            settings.flag("nonsense")

    def test_log_level(self, start: Start) -> None:
        start(FakeHost(log_level="warn"))
        assert logging.getLogger("atlas").getEffectiveLevel() == logging.WARNING
        start(FakeHost(verbose_logging=True))
        assert logging.getLogger("atlas").getEffectiveLevel() == logging.DEBUG
