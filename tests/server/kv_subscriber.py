"""Keeps an index of a server's blocks by its KV events, as a router does."""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import zmq

WAIT_S = 60.0
STORED = ["block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name"]
_KEY_AT, _KIND_AT, _BLOCK = 48, 16, 0  # of an entry's file: docs/memory-format.md


@dataclass
class Index:
    """What the messages so far come to."""

    parents: dict[int, int | None] = field(default_factory=dict)
    tokens: dict[int, list[int]] = field(default_factory=dict)
    mediums: dict[str, set[int]] = field(default_factory=dict)
    removed: int = 0
    cleared: int = 0

    def take(self, payload: bytes) -> None:
        """Follow a message."""
        ts, events, rank = msgspec.msgpack.decode(payload)
        if isinstance(events[0], dict):  # the same as arrays, by name
            assert all(event["type"] != "BlockStored" or list(event)[1:] == STORED for event in events)
            events = [list(event.values()) for event in events]
        assert ts > 1.7e9
        assert rank == 0
        for name, *fields in events:
            if name == "AllBlocksCleared":
                assert fields == []
                self.cleared += 1
                self.mediums.clear()
            elif name == "BlockRemoved":
                (key,), medium = fields
                self.mediums[medium].remove(key)
                self.removed += 1
            else:
                assert name == "BlockStored"
                (key,), parent, tokens, size, lora_id, medium, lora_name = fields
                assert (len(tokens), lora_id, lora_name) == (size, None, None)
                self.parents[key], self.tokens[key] = parent, tokens
                self.mediums.setdefault(medium, set()).add(key)

    def blocks(self, medium: str) -> set[int]:
        """The hashes of those in it."""
        return self.mediums.get(medium, set())

    def texts(self, medium: str) -> list[list[int]]:
        """The tokens from the first on, of each block in it that is the last of a conversation."""
        keys = self.blocks(medium)
        ends = keys - {parent for key in keys if (parent := self.parents[key]) is not None}
        return [self._up_to(key) for key in ends]

    def _up_to(self, key: int | None) -> list[int]:
        return [] if key is None else [*self._up_to(self.parents[key]), *self.tokens[key]]


class Subscriber:
    """Follows a server, and asks for what it missed; as a context manager."""

    def __init__(self, address: str, replay_address: str, topic: str = "") -> None:
        self.index = Index()
        self.numbers: list[int] = []
        self._context = zmq.Context()
        self._topic = topic.encode()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, self._topic)
        self._socket.connect(address)
        self._replays = self._context.socket(zmq.DEALER)
        self._replays.connect(replay_address)

    def wait_until(self, condition: Callable[[Index], Any]) -> None:
        """Follow messages until that holds."""
        deadline = time.monotonic() + WAIT_S
        while not condition(self.index):
            assert time.monotonic() < deadline, self.index.mediums
            if self._socket.poll(100):
                topic, number, payload = self._socket.recv_multipart()
                assert topic == self._topic
                self._take(int.from_bytes(number, "big"), payload)
            else:
                self.catch_up()  # the first and the last may come before the server knows of a subscriber

    def catch_up(self) -> None:
        """Ask for what came after the last message."""
        self._replays.send_multipart([b"", self._next.to_bytes(8, "big")])
        while True:
            assert self._replays.poll(int(1000 * WAIT_S))
            _, number, payload = self._replays.recv_multipart()
            if number == (-1).to_bytes(8, "big", signed=True):
                assert payload == b""
                return
            self._follow(int.from_bytes(number, "big"), payload)

    @property
    def _next(self) -> int:
        return self.numbers[-1] + 1 if self.numbers else 0

    def _take(self, number: int, payload: bytes) -> None:
        if number > self._next:
            self.catch_up()
        self._follow(number, payload)

    def _follow(self, number: int, payload: bytes) -> None:
        if number >= self._next:
            self.numbers.append(number)
            self.index.take(payload)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context.destroy(linger=0)


def blocks_on_disk(memory: Path) -> set[int]:
    """Those that a server has files of under its memory path."""
    found = set()
    for path in memory.glob("blocks/*/*/*.kv"):
        head = path.read_bytes()[:112]
        if struct.unpack_from("<I", head, _KIND_AT)[0] == _BLOCK:
            found.add(int.from_bytes(head[_KEY_AT : _KEY_AT + 8], "little"))
    return found
