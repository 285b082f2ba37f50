"""Published algorithms, from the optional package libcachesim. They know blocks, but no prompts."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from atlas_plugin.eviction.records import Touch

ALGORITHMS = {"arc": "ARC", "lirs": "LIRS", "gdsf": "GDSF", "cacheus": "Cacheus"}


class MissingLibrary(Exception):  # noqa: N818
    """libcachesim is not installed."""


class ExternalLayer:
    """A layer that one of ALGORITHMS runs as it likes. Raises MissingLibrary."""

    def __init__(self, algorithm: str, capacity: int) -> None:
        library = _library(algorithm)
        self._cache = getattr(library, ALGORITHMS[algorithm])(cache_size=capacity)
        self._request: Callable[..., Any] = library.Request

    def hits(self, touches: Sequence[Touch]) -> list[bool]:
        """Touch each entry in order; for each, whether it was there."""
        cache, request = self._cache, self._request
        return [bool(cache.get(request(obj_id=touch.key, obj_size=touch.size))) for touch in touches]


def _library(algorithm: str) -> Any:
    try:
        return import_module("libcachesim")
    except ImportError as error:
        raise MissingLibrary(
            f"policy '{algorithm}' needs the package libcachesim ({error}); install it with "
            "pip install 'atlas-llama-server[baselines]', or leave the policy out"
        ) from None
