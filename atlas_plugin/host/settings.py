"""The server's settings, as Python sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class SettingsChange:
    """What became of a change: the new values by name, or why nothing was changed."""

    changed: Mapping[str, Any] = field(default_factory=dict)
    problems: Sequence[Mapping[str, str]] = ()
    """A `field`, which is the name of a setting, and a `message` for each value that cannot be."""


class Settings:
    """A read-only view of the effective settings at the time it was made; safe to share among threads.

    The readers raise KeyError for a name that the server does not have and TypeError for one of another type.
    """

    def __init__(self, entries: Sequence[dict[str, Any]]) -> None:
        self._entries = {str(entry["name"]): entry for entry in entries}

    def text(self, name: str) -> str:
        """The value of a string setting; empty when it is not set."""
        return self._value(name, str) or ""

    def flag(self, name: str) -> bool:
        """The value of a bool setting."""
        return bool(self._value(name, bool))

    def integer(self, name: str) -> int:
        """The value of an int or bytes setting, in the unit that its help names."""
        value = self._value(name, int)
        if value is None:
            raise TypeError(f"setting {name} has no value")
        return value

    def number(self, name: str) -> float:
        """The value of a double setting, in the unit that its help names."""
        value = self.entry(name)["value"]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"setting {name} is {type(value).__name__}, not float")
        return float(value)

    def texts(self, name: str) -> list[str]:
        """The values of a list setting, without the empty ones."""
        return [text for item in self._value(name, list) or () if (text := str(item).strip())]

    def switches(self, name: str) -> str:
        """How a user sets it, for messages: its flag and its environment variable."""
        entry = self.entry(name)
        return f"{entry['flag']} or {entry['env']}"

    def redacted(self) -> list[dict[str, Any]]:
        """All settings, in the server's order, with the values of secrets that are set replaced by `***`."""
        return [
            {**entry, "value": "***"} if entry.get("secret") and entry["value"] else dict(entry)
            for entry in self._entries.values()
        ]

    def entry(self, name: str) -> Mapping[str, Any]:
        """All that the server says about a setting: flag, env, type, value, default, origin, help …"""
        try:
            return self._entries[name]
        except KeyError:
            raise KeyError(
                f"the server has no setting {name}; is atlas_plugin of the same version?"
            ) from None

    def _value(self, name: str, kind: type[_T]) -> _T | None:
        value = self.entry(name)["value"]
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise TypeError(f"setting {name} is {type(value).__name__}, not {kind.__name__}")
        return value
