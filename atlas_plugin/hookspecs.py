"""The hooks that a plugin may implement, each as a function of the same name marked with `hookimpl`.

An implementation names the arguments that it wants; the others can be left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import pluggy

from atlas_plugin.eviction.records import Eviction, Touch
from atlas_plugin.host.host import Host
from atlas_plugin.routing import Routes

if TYPE_CHECKING:
    from atlas_plugin.host.manager import PluginManager

hookspec = pluggy.HookspecMarker("atlas")
hookimpl = pluggy.HookimplMarker("atlas")


@dataclass(frozen=True)
class StatusReport:
    """What a plugin adds to the status: JSON fields of `data`, and a sentence for each problem it has now.

    Raises TypeError for what JSON cannot hold.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    problems: Sequence[str] = ()

    def __post_init__(self) -> None:
        # A report that JSON cannot hold is to fail in the plugin that makes it, not in the answer.
        orjson.dumps([dict(self.data), [*self.problems]])


@hookspec
def startup(host: Host, plugins: "PluginManager") -> None:
    """Get ready; called once, before the first request, after the plugins loaded earlier."""


@hookspec
def register_routes(routes: Routes) -> None:
    """Add routes under /v1/atlas/x/; called once, after this plugin's startup."""


@hookspec
def report_status() -> StatusReport | None:
    """Add to GET /v1/atlas/status; called for each such request, on its thread, so it must be quick."""


@hookspec
def evict_order(layer: int, touches: Sequence[Touch], evictions: Sequence[Eviction]) -> Sequence[int] | None:
    """Give the entries touched in a layer their priorities, one for each touch; the smallest goes first."""


@hookspec
def admit(layer: int, touch: Touch) -> bool | None:
    """Say whether a layer should keep the entry just touched; after False it goes before all others."""


@hookspec
def reload(changed: Mapping[str, Any]) -> None:
    """Follow a change of settings, names and new values; called after each POST /v1/atlas/config."""


@hookspec
def shutdown() -> None:
    """Make durable what is not and stop own threads; called once, in the reverse order of startup."""
