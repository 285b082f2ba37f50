"""Sending to who is slow, and again to who missed some; and what a follower makes of losses."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import zmq

from atlas_plugin.host.host import ServerHost
from atlas_plugin.kv_events import publisher
from atlas_plugin.kv_events.follower import Follower
from atlas_plugin.kv_events.messages import (
    AllBlocksCleared,
    BlockStored,
    as_all_maps,
    as_arrays,
    as_maps,
    event_of,
)
from atlas_plugin.kv_events.publisher import END, Publisher
from atlas_plugin.storage.memory_records import BlockChange, BlockChanges
from atlas_plugin.testing.fake_host import FakeHost
from atlas_plugin.testing.server import free_port

WAIT_MS = 30_000
STORED = BlockChange(True, 1, 7, 0, (1, 2, 3))


@pytest.fixture
def addresses() -> tuple[str, str]:
    return f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"


@contextmanager
def socket(kind: int, address: str, **options: int) -> Iterator["zmq.Socket[bytes]"]:
    context = zmq.Context()
    made = context.socket(kind)
    for name, value in options.items():
        setattr(made, name, value)
    made.connect(address)
    yield made
    context.destroy(linger=0)


def subscribe(sender: Publisher, subscriber: "zmq.Socket[bytes]") -> int:
    """Until a message arrives; its number."""
    subscriber.setsockopt(zmq.SUBSCRIBE, b"")
    while True:
        sender.send(b"are you there?")
        if subscriber.poll(10):
            return int.from_bytes(subscriber.recv_multipart()[1], "big")


def replayed(sender: Publisher, address: str, first: int) -> tuple[list[int], bool]:
    """The numbers of what is sent again from one on, and whether that is not all."""
    with socket(zmq.DEALER, address) as asking:
        asking.send_multipart([b"", first.to_bytes(8, "big")])
        is_short = sender.serve_replays(WAIT_MS / 1000)
        numbers = []
        while asking.poll(WAIT_MS):
            _, number, _ = asking.recv_multipart()
            if number == END:
                break
            numbers.append(int.from_bytes(number, "big"))
        return numbers, is_short


def test_who_is_slow_misses_messages_and_sees_that(
    addresses: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "MAX_UNREAD", 2)
    sender = Publisher(*addresses, "")
    with socket(zmq.SUB, addresses[0], rcvhwm=1, rcvbuf=4096) as slow:
        first = subscribe(sender, slow)
        n = 300
        for _ in range(n):
            sender.send(bytes(100_000))  # returns, though nobody reads
        numbers: list[int] = []
        while not numbers or slow.poll(500):
            numbers.append(int.from_bytes(slow.recv_multipart()[1], "big"))
        last = first + n
        assert numbers == sorted(set(numbers))
        assert len(numbers) < n  # a gap
    again, is_short = replayed(sender, addresses[1], last - 9)
    assert again[:10] == list(range(last - 9, last + 1))
    assert not is_short
    sender.close()


def test_what_can_be_sent_again_is_bounded(
    addresses: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "KEPT_BYTES", 1000)
    sender = Publisher(*addresses, "")
    for _ in range(50):
        sender.send(bytes(100))
    assert replayed(sender, addresses[1], 45) == ([45, 46, 47, 48, 49], False)
    assert replayed(sender, addresses[1], 50) == ([], False)
    assert replayed(sender, addresses[1], 7) == (list(range(40, 50)), True)
    sender.close()


def test_what_is_no_question_is_left_alone(addresses: tuple[str, str]) -> None:
    sender = Publisher(*addresses, "")
    with socket(zmq.DEALER, addresses[1]) as asking:
        for frames in ([b""], [b"", b"7"], [b"x", bytes(8)], [b"", bytes(8), b""], [bytes(8)]):
            asking.send_multipart(frames)
    assert replayed(sender, addresses[1], 0) == ([], False)
    sender.close()


class Told(Publisher):
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent = 0
        self.replays = 0
        self.numbers: list[int] = []
        self.batches: list[list[str]] = []
        self._next = 0

    def send(self, payload: bytes) -> None:
        self.sent += 1
        self.numbers.append(self._next)
        self._next += 1
        self.batches.append([event["type"] for event in msgspec.msgpack.decode(payload)[1]])

    def close(self) -> None:
        pass


def test_where_some_is_lost_a_number_is_missing_and_all_is_told_anew() -> None:
    host = FakeHost()
    gone = BlockChange(False, 1, 7, 0, ())
    host.block_news.extend(
        [
            BlockChanges([STORED, STORED], anew=True, more=True),
            BlockChanges([gone, gone], more=True),
            BlockChanges([STORED], anew=True, more=False),
        ]
    )
    told = Told()
    follower = Follower(host, lambda: told, as_maps)
    follower.tell("root", told)
    assert told.batches == [
        ["AllBlocksCleared", "BlockStored"],  # what is told twice is sent once
        ["BlockRemoved"],
        ["AllBlocksCleared", "BlockStored"],
    ]
    assert told.numbers == [0, 1, 3]
    assert follower.facts()["anew"] == 2


def test_events_are_those_of_vllm() -> None:
    events = [event_of(BlockChange(True, 2, 2**64 - 1, 5, (1, 2))), AllBlocksCleared()]
    ts, rows, rank = msgspec.msgpack.decode(as_arrays(events))
    stored = [[2**64 - 1], 5, [1, 2], 2, None, "DISK", None]
    assert rows == [["BlockStored", *stored], ["AllBlocksCleared"]]
    batch = msgspec.msgpack.decode(as_all_maps(events))
    assert batch["ts"] >= ts
    assert batch["data_parallel_rank"] == rank == 0
    assert msgspec.msgpack.decode(as_maps(events))[1:] == [batch["events"], 0]
    first, second = batch["events"]
    assert list(first.values()) == ["BlockStored", *stored]
    assert list(first)[:3] == ["type", "block_hashes", "parent_block_hash"]
    assert second == {"type": "AllBlocksCleared"}
    first_of_all = event_of(STORED)
    assert isinstance(first_of_all, BlockStored)
    assert first_of_all.parent_block_hash is None


def test_the_fake_is_a_host() -> None:
    host: ServerHost = FakeHost()
    assert host.block_changes("root") == BlockChanges()
