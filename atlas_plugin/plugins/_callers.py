"""Who asks, as the server sees it."""

from atlas_plugin.http import Headers

_PREFIX = "Bearer "


def presented_key(headers: Headers) -> str:
    """What the server takes for the key of a request with these headers; empty: there is none."""
    text = headers.get("authorization") or headers.get("x-api-key", "")
    return text.removeprefix(_PREFIX)
