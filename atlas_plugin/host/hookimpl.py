"""How a plugin marks its hooks, and what it says about some of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

import pluggy

from atlas_plugin import facts

_F = TypeVar("_F", bound=Callable[..., Any])
_ATTRIBUTE = "atlas_options"

hookspec = pluggy.HookspecMarker("atlas")
_mark = pluggy.HookimplMarker("atlas")


@dataclass(frozen=True)
class HookOptions:
    """What a plugin says about a hook on the path of requests, or periodic. Raises ValueError."""

    deadline_ms: int | None = None
    """How long a request waits for it; None: as the setting hook_deadline_ms says."""
    fails: Literal["open", "closed"] | None = None
    """Whether a request goes on without its answer, or is refused; None: open, but for authenticate."""
    priority: int = 0
    """Who has less is asked earlier; equals by the name of the plugin."""
    batch: int = 1
    """How many events of a streamed answer it wants at once, at most."""
    seconds: float | None = None
    """Of `periodic`: from the end of a call to the next."""

    def __post_init__(self) -> None:
        _check("deadline_ms", 1 if self.deadline_ms is None else self.deadline_ms, 1, facts.MAX_DEADLINE_MS)
        _check("batch", self.batch, 1, facts.MAX_BATCH)
        _check("priority", self.priority, -(1 << 31), 1 << 31)
        if self.seconds is not None and not 0.01 <= self.seconds <= 1e6:
            raise ValueError(f"seconds must be from 0.01 to 1000000, not {self.seconds!r}")
        if self.fails not in ("open", "closed", None):
            raise ValueError(f'fails must be "open" or "closed", not {self.fails!r}')


class HookimplMarker:
    """Marks a function as the hook of its name."""

    @overload
    def __call__(self, function: _F) -> _F: ...

    @overload
    def __call__(
        self,
        function: None = None,
        *,
        tryfirst: bool = False,
        trylast: bool = False,
        wrapper: bool = False,
        hookwrapper: bool = False,
        optionalhook: bool = False,
        specname: str | None = None,
        **options: Any,
    ) -> Callable[[_F], _F]: ...

    def __call__(
        self,
        function: Any = None,
        *,
        tryfirst: bool = False,
        trylast: bool = False,
        wrapper: bool = False,
        hookwrapper: bool = False,
        optionalhook: bool = False,
        specname: str | None = None,
        **options: Any,
    ) -> Any:
        """`options` are the fields of HookOptions, for hooks that requests wait for.

        `wrapper`, `tryfirst` and `trylast` are pluggy's, for the others. Raises TypeError and ValueError for
        options that there are not.
        """
        chosen = HookOptions(**options) if options else None

        def mark(marked: _F) -> _F:
            if chosen is not None:
                setattr(marked, _ATTRIBUTE, chosen)
            return _mark(
                marked,
                tryfirst=tryfirst,
                trylast=trylast,
                wrapper=wrapper,
                hookwrapper=hookwrapper,
                optionalhook=optionalhook,
                specname=specname,
            )

        return mark if function is None else mark(function)


hookimpl = HookimplMarker()


def options_of(function: Callable[..., Any]) -> HookOptions | None:
    """What the plugin said about it; None: nothing."""
    options: HookOptions | None = getattr(function, _ATTRIBUTE, None)
    return options


def _check(name: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} must be an int from {least} to {most}, not {value!r}")
