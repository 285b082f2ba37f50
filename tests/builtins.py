"""The names of the plugins that come with ATLAS, in load order."""

BUILTIN = [
    "status",
    "plugins",
    "config",
    "debug",
    "tracing",
    "memory",
    "background",
    "responses",
    "eviction",
    "kv_events",
    "metrics",
    "requests",
    "dashboard",
    "openapi",
]
