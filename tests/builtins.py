"""The names of the plugins that come with ATLAS, in load order."""

BUILTIN = [
    "status",
    "plugins",
    "config",
    "debug",
    "tracing",
    "memory",
    "responses",
    "eviction",
    "metrics",
    "requests",
    "dashboard",
    "openapi",
]
