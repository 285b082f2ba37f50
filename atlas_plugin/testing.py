"""For tests of plugins: a host without a server.

application = Application(FakeHost(plugins=["my_plugin.py"]))
application.start()
response = application.handle(Request("GET", "/v1/atlas/x/mine"))
"""

from typing import Any

from atlas_plugin.application import Application
from atlas_plugin.host import LogLevel
from atlas_plugin.settings import Settings

__all__ = ["Application", "FakeHost"]

_DEFAULTS: dict[str, tuple[str, str, Any]] = {
    "memory_save_path": ("string", "memory-path", ""),
    "enable_memory_persistence": ("bool", "memory-persistence", True),
    "max_state_bytes": ("int", "max-state-bytes", 8 * 1024 * 1024),
    "plugins": ("list", "plugin", []),
    "plugins_dir": ("string", "plugins-dir", ""),
    "require_python": ("bool", "require-python", False),
    "log_level": ("level", "log-level", "info"),
    "verbose_logging": ("bool", "verbose", False),
}


class FakeHost:
    """A host with settings of the test's choice; keeps what is logged in `records`."""

    def __init__(self, **settings: Any) -> None:
        if unknown := settings.keys() - _DEFAULTS.keys():
            raise TypeError(f"no such settings: {', '.join(sorted(unknown))}")
        self.records: list[tuple[LogLevel, str]] = []
        self.entries: list[dict[str, Any]] = [
            {
                "name": name,
                "flag": f"--atlas-{flag}",
                "env": f"ATLAS_{flag.upper().replace('-', '_')}",
                "type": kind,
                "value": settings.get(name, default),
                "default": default,
                "origin": "flag" if name in settings else "default",
                "secret": False,
                "help": "",
            }
            for name, (kind, flag, default) in _DEFAULTS.items()
        ]

    def log(self, level: LogLevel, text: str) -> None:
        """Keep the record."""
        self.records.append((level, text))

    def status(self) -> dict[str, Any]:
        """What a server says once its model is loaded."""
        return {"initialized": True, "context_pool_size": 4, "metrics_enabled": False, "uptime_seconds": 1.5}

    def settings(self) -> Settings:
        """The settings given."""
        return Settings(self.entries)

    @property
    def log_text(self) -> str:
        """Everything logged so far, a record a line."""
        return "\n".join(text for _, text in self.records)
