"""Readings as server-sent events."""

import time

from atlas_plugin import json_text
from atlas_plugin.metrics.sampler import Subscription

HEARTBEAT_S = 15.0
"""Proxies close what is silent for longer, as a rule after 30 or 60 seconds."""
_RECONNECT_MS = 3000
# A call that waits keeps the server from stopping, and from noticing that the client left.
_POLL_S = 0.5


class EventStream:
    """The pieces of one answer, as long as the subscription lasts.

    Not a generator: one that was never asked for a piece would not clean up when it is closed.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._greeted = False
        self._written_at = time.monotonic()

    def __iter__(self) -> "EventStream":
        return self

    def __next__(self) -> bytes:
        """An event, a comment where there was none for long, or nothing after half a second."""
        if not self._greeted:
            self._greeted = True
            return b"retry: %d\n\n" % _RECONNECT_MS
        found = self._subscription.wait(_POLL_S)
        if found is None and self._subscription.ended:
            raise StopIteration
        if found is not None:
            number, reading = found
            piece = b"id: %d\ndata: %s\n\n" % (number, json_text.encode(reading.event()))
        elif time.monotonic() - self._written_at >= HEARTBEAT_S:
            piece = b": heartbeat\n\n"
        else:
            return b""
        self._written_at = time.monotonic()
        return piece

    def close(self) -> None:
        """End the subscription; any thread may."""
        self._subscription.close()
