"""ATLAS: Python inside llama-server. The names in `__all__` are what plugins may rely on."""

from atlas_plugin.completions import (
    Caller,
    CompletionRequest,
    Identity,
    Modify,
    Pass,
    Reject,
    Respond,
    StreamChunk,
)
from atlas_plugin.errors import (
    AskError,
    AtlasError,
    AuthenticationError,
    Forbidden,
    MethodNotAllowed,
    NotFoundError,
    PayloadTooLarge,
    PluginError,
    RateLimitError,
    ServerError,
    UnavailableError,
    ValidationError,
)
from atlas_plugin.hookspecs import PluginInfo, Plugins, StatusReport, hookimpl
from atlas_plugin.host.host import Host
from atlas_plugin.host.settings import Settings
from atlas_plugin.http import Request, Response, StreamResponse
from atlas_plugin.memory.news import IdleSession, Restored, Saved
from atlas_plugin.metrics.registered import Metrics
from atlas_plugin.routing import Routes
from atlas_plugin.tiers import Tier, TierStats
from atlas_plugin.version import ABI_VERSION, HOOK_API, __version__

__all__ = [
    "ABI_VERSION",
    "HOOK_API",
    "AskError",
    "AtlasError",
    "AuthenticationError",
    "Caller",
    "CompletionRequest",
    "Forbidden",
    "Host",
    "Identity",
    "IdleSession",
    "MethodNotAllowed",
    "Metrics",
    "Modify",
    "NotFoundError",
    "Pass",
    "PayloadTooLarge",
    "PluginError",
    "PluginInfo",
    "Plugins",
    "RateLimitError",
    "Reject",
    "Request",
    "Respond",
    "Response",
    "Restored",
    "Routes",
    "Saved",
    "ServerError",
    "Settings",
    "StatusReport",
    "StreamChunk",
    "StreamResponse",
    "Tier",
    "TierStats",
    "UnavailableError",
    "ValidationError",
    "__version__",
    "hookimpl",
]
