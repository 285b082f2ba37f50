"""What Python asks of the memory crosses in the layout that atlas-abi.h declares."""

import pytest

from atlas_plugin import ServerError, facts
from atlas_plugin.eviction import Eviction, Kind, Strategy, Touch
from atlas_plugin.host.host import EmbeddedHost
from atlas_plugin.host.settings import SettingsChange
from atlas_plugin.storage.memory_records import (
    EVENT,
    Conversation,
    MemoryEvents,
    SavedEntry,
    Session,
    SessionEdit,
)
from atlas_plugin.testing import FakeHost
from tests.unit.embedding.host import Server

EVENTS = MemoryEvents(
    (
        Touch(2**64 - 1, 7, -5, 2**40, Kind.CHECKPOINT, Strategy.LFU, 0.25),
        Touch(7, 0, -4, 1, Kind.BLOCK, Strategy.ADAPTIVE, 1e-9),
    ),
    {1: (Eviction(3, -(2**61), 9),), 2: (Eviction(4, 2**61, 10), Eviction(5, 0, 11))},
    (SavedEntry(6, 3, 2**33, Kind.TAIL, 0.5, 2**32 - 1),),
)


@pytest.fixture
def quiet() -> Server:
    """A server without a memory path, so that no plugin takes its events."""
    return Server(FakeHost())


@pytest.fixture
def host(quiet: Server) -> EmbeddedHost:
    return EmbeddedHost(quiet, quiet.lib, quiet.api, quiet.host)


def test_the_numbers_agree(quiet: Server) -> None:
    assert quiet.ffi.sizeof("atlas_memory_event") == EVENT.size
    numbers = [name for name in dir(quiet.lib) if name.startswith("ATLAS_")]
    assert len(numbers) > 30
    for name in numbers:
        assert getattr(quiet.lib, name) == getattr(facts, name.removeprefix("ATLAS_"))


def test_events_and_their_order(quiet: Server, host: EmbeddedHost) -> None:
    quiet.fake.events.append(EVENTS)
    events = host.memory_events(with_saved=True)
    assert (events, events.total) == (EVENTS, 6)
    assert quiet.fake.is_saved_wanted
    assert host.memory_events() == MemoryEvents()
    assert not quiet.fake.is_saved_wanted
    host.set_priorities(2, [-(2**62) + 1, 2**62 - 1])
    host.set_priorities(1, [])
    assert quiet.fake.orders == {1: [[]], 2: [[-(2**62) + 1, 2**62 - 1]]}
    assert events.total < facts.MAX_EVENTS


def test_sessions(quiet: Server, host: EmbeddedHost) -> None:
    key = "0f" * 32
    state = {"tokens": 300, "chain": [key, key], "last_used": 1.5, "pinned": True}
    assert host.edit_session("restore", "a", **state) == SessionEdit(found=True)
    quiet.fake.use_session("b", ram_bytes=5, disk_bytes=7)
    [a, b] = host.sessions()
    assert a == Session("a", 1, 300, [key, key], 1.5, True, 0, 0)
    assert host.sessions(since=a.version) == [b]
    assert host.sessions(ids=["b", "nobody"]) == [b]
    quiet.fake.pin_problem = "too many"
    assert host.edit_session("pin", "b") == SessionEdit(found=True, problem="too many")
    assert host.edit_session("forget", "b") == SessionEdit(found=True, bytes=12)
    assert host.edit_session("expire", "b") == SessionEdit(found=False)


def test_settings_schema_and_conversations(quiet: Server, host: EmbeddedHost) -> None:
    assert host.change_settings({"max_sessions": 5}) == SettingsChange({"max_sessions": 5})
    assert host.settings().integer("max_sessions") == 5
    problems = [{"field": "plugins", "message": "it needs a restart"}]
    assert host.change_settings({"plugins": ["a"]}) == SettingsChange(problems=problems)
    assert host.request_schema() == quiet.fake.request_schema()
    sent = Conversation("a", [{"role": "user", "content": "ü"}])
    quiet.fake.queue.append(sent)
    assert (host.conversations(), host.conversations()) == ([sent], [])


def test_a_server_that_cannot_answer(quiet: Server, host: EmbeddedHost) -> None:
    quiet.broken = True
    with pytest.raises(ServerError, match="did not answer a query for its state"):
        host.memory_events()
    quiet.reason = b"there is no memory"
    with pytest.raises(ServerError, match="there is no memory"):
        host.sessions()
