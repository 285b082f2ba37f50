"""What takes the place of a plugin that protects something and could not be started."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from atlas_plugin.host.hookimpl import hookimpl


def refusing(hooks: Iterable[str], error: str) -> object:
    """An object with these hooks, all of which fail, so that requests are refused that they were to allow."""
    return SimpleNamespace(**{hook: _failing(hook, error) for hook in hooks})


def _failing(hook: str, error: str) -> Callable[..., Any]:
    def fail() -> None:
        raise RuntimeError(f"it could not be started: {error}")

    fail.__name__ = hook
    return hookimpl(fails="closed")(fail)
