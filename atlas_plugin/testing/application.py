"""All that the server runs in Python, and its questions to hooks, without the server."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from atlas_plugin import facts, json_text
from atlas_plugin.builtin import make_builtins
from atlas_plugin.completions import Caller, CompletionRequest, Identity, Reject, chunk_of
from atlas_plugin.errors import PluginError
from atlas_plugin.hookspecs import REQUEST_HOOKS
from atlas_plugin.host import application
from atlas_plugin.host.host import ServerHost
from atlas_plugin.host.request_hooks import HookTable
from atlas_plugin.host.tier_calls import TierTable
from atlas_plugin.host.verdicts import Step
from atlas_plugin.http import Response
from atlas_plugin.metrics.families import Families
from atlas_plugin.testing.fake_host import FakeHost
from atlas_plugin.testing.tiers import AskedTier


@dataclass(frozen=True)
class Asked:
    """What came of asking all plugins that have a hook."""

    value: Any
    """The body, prompt, answer, record or StreamChunk, as the last plugin that changed it left it."""
    rejected: Reject | None = None
    """What the client gets instead, where a plugin refused, or failed and is to fail closed."""
    responded: Response | None = None
    """What the client gets instead, where a plugin answered in the model's place."""
    identity: Identity | None = None
    """Whose the request is, where a plugin said so in `authenticate`."""
    failed: tuple[str, ...] = ()
    """Plugins that raised or answered what they may not, and why, as `name: ValueError: why`."""


class Application(application.Application):
    """What the server runs, with the plugins that come with ATLAS.

    As a context manager it is started and stopped. Entering raises PluginError where a plugin fails.
    """

    def __init__(self, host: ServerHost) -> None:
        super().__init__(host, make_builtins)
        if isinstance(host, FakeHost):
            host.routes = self.handle

    def ask(self, hook: str, about: CompletionRequest | Caller, value: Any = None) -> Asked:
        """Ask about a request as the server does: by order, and what one plugin changed, the next one gets.

        `about` is the request, or of `authenticate` the Caller. `value` is the body, prompt, answer or
        record, or of `on_stream_chunk` a StreamChunk. There are no deadlines here: a hook that never returns
        is waited for. Nor is a chunk filled up to the `batch` that a plugin wants. Any thread. Raises
        ValueError for a hook that requests do not meet, TypeError for a value that is no JSON.
        """
        if hook not in REQUEST_HOOKS:
            raise ValueError(f"no request meets a hook '{hook}'; it meets {', '.join(REQUEST_HOOKS)}")
        table = HookTable(self.plugins.hooks, 0, facts.MAX_DEADLINE_MS)
        body = json_text.encode_strictly(value)
        rejected = responded = identity = None
        failed: list[str] = []
        rows = [row for row in table.rows() if row["hook"] == REQUEST_HOOKS.index(hook)]
        for position, row in enumerate(rows):
            step = table.run(hook, position, about, body)
            if step.number == facts.STEP_FAIL:
                name = row["plugin"]
                failed.append(f"{name}: {self.plugins.hooks.failing(name)[hook]}")
                if row["fails_closed"]:
                    rejected = Reject(503, f"plugin '{name}' must allow this request and failed")
            elif step.number == facts.STEP_MODIFY:
                body = _response(step).body
            elif step.number == facts.STEP_REJECT:
                refusal = _response(step)
                rejected = Reject(refusal.status, refusal.body.decode(), refusal.headers)
            elif step.number == facts.STEP_RESPOND and hook == "authenticate":
                identity = Identity(**json_text.decode(_response(step).body))
            elif step.number == facts.STEP_RESPOND:
                responded = _response(step)
            if rejected or responded or identity:
                break
        document = json_text.decode(body)
        left = chunk_of(document) if hook == "on_stream_chunk" else document
        return Asked(left, rejected, responded, identity, tuple(failed))

    def tier(self, layer: int) -> AskedTier:
        """The tier that a plugin brings for a layer, as the server uses it; there are no deadlines here.

        Raises ValueError where there is none.
        """
        brought = self.plugins.tiers()
        layers = [one.tier.layer for one in brought]
        if layer not in layers:
            raise ValueError(f"no plugin has a tier for layer {layer}; there are {layers}")
        return AskedTier(TierTable(self.plugins.hooks, 0, brought), layers.index(layer))

    def metric(self, name: str, **labels: str) -> float:
        """What a plugin's metric says, all samples of these labels together; of histograms, their counts.

        0 where there are none. Any thread.
        """
        families = Families(self.plugins.metrics())
        return families.total(name, **labels) + families.histogram(name, **labels).count

    def __enter__(self) -> Self:
        self.start()
        for info in self.plugins.failed:
            self.stop()
            raise PluginError(info.name, f"plugin '{info.name}' failed: {info.error}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _response(step: Step) -> Response:
    assert step.response is not None
    return step.response
