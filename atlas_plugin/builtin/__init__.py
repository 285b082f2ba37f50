"""The plugins that come with ATLAS. They use the public hooks, and what `Services` gives to them alone."""

from collections.abc import Mapping

from atlas_plugin.builtin.background import BackgroundPlugin
from atlas_plugin.builtin.config import ConfigPlugin
from atlas_plugin.builtin.conversations import ConversationsPlugin
from atlas_plugin.builtin.dashboard import DashboardPlugin
from atlas_plugin.builtin.debug import DebugPlugin
from atlas_plugin.builtin.eviction import EvictionPlugin
from atlas_plugin.builtin.kv_events import KvEventsPlugin
from atlas_plugin.builtin.memory import MemoryPlugin
from atlas_plugin.builtin.metrics import MetricsPlugin
from atlas_plugin.builtin.openapi import OpenApiPlugin
from atlas_plugin.builtin.plugins import PluginsPlugin
from atlas_plugin.builtin.requests import RequestsPlugin
from atlas_plugin.builtin.responses import ResponsesPlugin
from atlas_plugin.builtin.status import StatusPlugin
from atlas_plugin.builtin.stored_completions import StoredCompletionsPlugin
from atlas_plugin.builtin.tracing import TracingPlugin
from atlas_plugin.host.services import Services


def make_builtins(services: Services) -> Mapping[str, object]:
    """All of them by name, in load order."""
    memory = MemoryPlugin(services)
    background = BackgroundPlugin(memory)
    return {
        "status": StatusPlugin(),
        "plugins": PluginsPlugin(services),
        "config": ConfigPlugin(services),
        "debug": DebugPlugin(services),
        # Stopped in reverse order: a collector may take its time once all else is durable.
        "tracing": TracingPlugin(),
        "memory": memory,
        "conversations": ConversationsPlugin(memory),
        "background": background,
        "responses": ResponsesPlugin(services, memory, background),
        "stored_completions": StoredCompletionsPlugin(services, memory),
        "eviction": EvictionPlugin(services),
        "kv_events": KvEventsPlugin(services),
        "metrics": MetricsPlugin(services),
        "requests": RequestsPlugin(),
        "dashboard": DashboardPlugin(),
        "openapi": OpenApiPlugin(services),
    }
