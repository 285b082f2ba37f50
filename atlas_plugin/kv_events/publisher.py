"""Sends messages to whoever subscribes, by ZeroMQ, and again to who missed some. It imports pyzmq."""

from collections import deque

import zmq

END = (-1).to_bytes(8, "big", signed=True)
"""The number of the message that ends a replay."""
KEPT_BYTES = 64 << 20
KEPT_MESSAGES = 10_000
"""What can be sent again; the oldest go first."""
MAX_UNREAD = 1000
"""Messages that wait for one subscriber: those beyond are lost to it, which it sees by their numbers."""
_CLOSING_MS = 500


class Publisher:
    """A PUB socket and, where that is wanted, a ROUTER socket for replays. For one thread.

    Raises OSError for an address at which nothing can be bound; the text names it.
    """

    def __init__(self, address: str, replay_address: str, topic: str) -> None:
        self.sent = 0
        self.replays = 0
        self._topic = topic.encode()
        self._next = 0
        self._kept: deque[tuple[int, bytes]] = deque()
        self._kept_bytes = 0
        self._context = zmq.Context()
        try:
            self._pub = self._bound(zmq.PUB, address, MAX_UNREAD)
            # room for a whole replay: what is beyond is lost without a word
            self._replay: zmq.Socket[bytes] | None = None
            if replay_address:
                self._replay = self._bound(zmq.ROUTER, replay_address, 2 * KEPT_MESSAGES)
        except OSError:
            self._context.destroy(linger=0)
            raise

    def _bound(self, kind: int, address: str, max_unread: int) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.set_hwm(max_unread)
        socket.linger = _CLOSING_MS
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise OSError(f"nothing can be bound to {address}: {error}") from error
        return socket

    def send(self, payload: bytes) -> None:
        """Send a message under the next number. Never waits: to whom it cannot be sent, it is lost."""
        number, self._next = self._next, self._next + 1
        self.sent += 1  # before anybody can see it
        self._pub.send_multipart([self._topic, number.to_bytes(8, "big"), payload], flags=zmq.NOBLOCK)
        self._kept.append((number, payload))
        self._kept_bytes += len(payload)
        while len(self._kept) > 1 and (self._kept_bytes > KEPT_BYTES or len(self._kept) > KEPT_MESSAGES):
            self._kept_bytes -= len(self._kept.popleft()[1])

    @property
    def has_replays(self) -> bool:
        """Whether somebody may want messages again."""
        return self._replay is not None

    def skip(self) -> None:
        """Leave a number out, so that everybody sees that something is missing."""
        self._next += 1

    def serve_replays(self, timeout_s: float) -> bool:
        """Wait for who wants messages again, at most so long, and send them what there is.

        Returns whether somebody wants some that are kept no more.
        """
        replay = self._replay
        is_short = False
        while replay is not None and replay.poll(int(timeout_s * 1000)):
            timeout_s = 0
            frames = replay.recv_multipart()
            # REQ sockets put an empty frame before what they ask
            if len(frames) != 3 or frames[1] or len(frames[2]) != 8:
                continue
            self.replays += 1
            first = int.from_bytes(frames[2], "big")
            for number, payload in self._kept:
                if number >= first:
                    replay.send_multipart([frames[0], b"", number.to_bytes(8, "big"), payload])
            replay.send_multipart([frames[0], b"", END, b""])
            is_short |= bool(self._kept) and self._kept[0][0] > first
        return is_short

    def close(self) -> None:
        """Send what waits, for half a second at most."""
        self._context.destroy(linger=_CLOSING_MS)
