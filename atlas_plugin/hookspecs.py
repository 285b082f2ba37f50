"""The hooks that a plugin may implement, each as a function of the same name marked with `hookimpl`.

An implementation names the arguments that it wants; the others can be left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from atlas_plugin import json_text
from atlas_plugin.completions import (
    Caller,
    CompletionRequest,
    Identity,
    Json,
    Pass,
    Reject,
    StreamChunk,
    Verdict,
)
from atlas_plugin.eviction.records import Eviction, Touch
from atlas_plugin.host.hookimpl import hookimpl as hookimpl
from atlas_plugin.host.hookimpl import hookspec
from atlas_plugin.host.host import Host
from atlas_plugin.memory.news import IdleSession, Restored, Saved
from atlas_plugin.metrics.families import Family
from atlas_plugin.metrics.registered import Metrics
from atlas_plugin.routing import Routes
from atlas_plugin.tiers import Tier

if TYPE_CHECKING:
    from typer import Typer


@dataclass(frozen=True)
class StatusReport:
    """What a plugin adds to the status: JSON fields of `data`, and a sentence for each problem it has now.

    Raises TypeError for what JSON cannot hold.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    problems: Sequence[str] = ()

    def __post_init__(self) -> None:
        # A report that JSON cannot hold is to fail in the plugin that makes it, not in the answer.
        json_text.encode_strictly([dict(self.data), [*self.problems]])


@dataclass(frozen=True)
class PluginInfo:
    """A plugin and what became of it. `error` is the last line of its traceback.

    `hook_failures` counts, for each hook that is asked while the server runs, how often it failed.
    """

    name: str
    source: str
    location: str
    version: str | None
    explicit: bool
    state: Literal["active", "disabled", "failed"] = "active"
    error: str | None = None
    description: str = ""
    """The first line of its docstring."""
    routes: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    hook_failures: Mapping[str, int] = field(default_factory=dict)
    request_hooks: tuple[Mapping[str, Any], ...] = ()
    """The hooks that requests wait for: what the plugin said about them, and what became of them."""
    tiers: tuple[Mapping[str, Any], ...] = ()
    """The tiers of the memory that it brings, likewise."""


class Plugins(Protocol):
    """What plugins are told of each other. Any thread may call all of it."""

    def infos(self) -> list[PluginInfo]:
        """Every plugin found, in load order."""

    @property
    def failed(self) -> list[PluginInfo]:
        """The plugins that were asked for and are not running."""

    @property
    def failing(self) -> list[str]:
        """A sentence for each hook that failed when it was last asked."""

    def reports(self) -> list[StatusReport]:
        """What the plugins say about themselves now."""

    def problems(self, reports: Iterable[StatusReport]) -> list[str]:
        """A sentence for each thing that is wrong now; `reports` are those of `reports()`."""


@hookspec
def configure(config: Any) -> None:
    """Take the plugin's configuration, of the type of the hook's argument; called once, before startup."""


@hookspec
def startup(host: Host, plugins: Plugins) -> None:
    """Get ready; called once, before the first request, after the plugins loaded earlier."""


@hookspec
def register_routes(routes: Routes) -> None:
    """Add routes under /v1/atlas/x/; called once, after this plugin's startup."""


@hookspec
def register_metrics(metrics: Metrics) -> None:
    """Make metrics, which the server exports; called once, after this plugin's startup."""


@hookspec
def register_tiers() -> Sequence[Tier] | None:
    """Bring tiers of the memory, for layers 4 to 10; called once, after this plugin's startup."""


@hookspec
def register_commands(commands: "Typer") -> None:
    """Add subcommands of `atlas`; called there, where no server runs."""


@hookspec
def report_status() -> StatusReport | None:
    """Add to GET /v1/atlas/status, which goes out without it when the plugins take longer than 50 ms."""


@hookspec
def report_metrics() -> Iterable[Family] | None:
    """Add to the metrics for Prometheus, which go out without it when the plugins take longer than 50 ms."""


@hookspec
def authenticate(caller: Caller) -> Identity | Reject | Pass | None:
    """Say whose a request to any route is; without an answer its API key counts, and the request waits."""


@hookspec
def on_request(request: CompletionRequest, body: dict[str, Json]) -> Verdict:
    """Decide about a completion request before anything else reads its body; the request waits."""


@hookspec
def on_prompt(request: CompletionRequest, prompt: Json) -> Verdict:
    """Decide about the prompt that the model is to get, rendered by the chat template; the request waits."""


@hookspec
def on_response(request: CompletionRequest, answer: Json) -> Verdict:
    """Decide about a whole answer that is not streamed, as the client is to get it; the request waits."""


@hookspec
def on_stream_chunk(request: CompletionRequest, chunk: StreamChunk) -> Verdict:
    """Decide about the next events of a streamed answer; the stream waits."""


@hookspec
def on_finished(request: CompletionRequest, record: dict[str, Json]) -> None:
    """Follow what was answered to the end; told later, and nobody waits."""


@hookspec
def on_failed(request: CompletionRequest, record: dict[str, Json]) -> None:
    """Follow what was refused, failed, or left by its client; told later, and nobody waits."""


@hookspec(firstresult=True)
def evict_order(layer: int, touches: Sequence[Touch], evictions: Sequence[Eviction]) -> Sequence[int] | None:
    """Give the entries touched in a layer their priorities, one for each touch; the smallest goes first."""


@hookspec(firstresult=True)
def admit(layer: int, touch: Touch) -> bool | None:
    """Say whether a layer should keep the entry just touched; after False it goes before all others."""


@hookspec
def on_saved(saved: Saved) -> None:
    """Follow which entries of the memory became durable on disk; told later, and nobody waits."""


@hookspec
def on_restored(restored: Restored) -> None:
    """Follow whose state was brought back from RAM or disk; told after the request, and nobody waits."""


@hookspec(firstresult=True)
def session_ttl(session: IdleSession) -> float | None:
    """Say how many seconds a session may be left unused before it ends, 0 for any number."""


@hookspec
def periodic() -> None:
    """Do something every `@hookimpl(seconds=…)`, on a thread of the plugin's own."""


@hookspec
def reload(changed: Mapping[str, Any]) -> None:
    """Follow a change of settings, names and new values; called after each POST /v1/atlas/config."""


@hookspec
def shutdown() -> None:
    """Make durable what is not and stop own threads; called once, in the reverse order of startup."""


REQUEST_HOOKS = (
    "on_request",
    "on_prompt",
    "on_response",
    "on_stream_chunk",
    "on_finished",
    "on_failed",
    "authenticate",
)
"""Those on the path of requests, by the numbers of `ATLAS_HOOK_*`."""


def usual_failing(hook: str) -> Literal["open", "closed"]:
    """What one of REQUEST_HOOKS does that fails, where its plugin says nothing."""
    return "closed" if hook == "authenticate" else "open"
