"""The names of the plugins that come with ATLAS, in load order."""

BUILTIN = [
    "status",
    "plugins",
    "config",
    "debug",
    "tracing",
    "memory",
    "conversations",
    "background",
    "responses",
    "stored_completions",
    "eviction",
    "kv_events",
    "metrics",
    "requests",
    "dashboard",
    "openapi",
]
