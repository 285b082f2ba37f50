"""From the server's events to an order of eviction, by the built-in policy."""

import threading
from pathlib import Path

import pytest

from atlas_plugin import ServerError, facts
from atlas_plugin.builtin import eviction
from atlas_plugin.eviction import Eviction, LayerPolicy
from atlas_plugin.storage.memory_records import MemoryEvents
from atlas_plugin.testing import FakeHost
from tests.unit.eviction.loads import chain
from tests.unit.eviction_plugin.driving import BATCH, LFU, Call, Eventually, HostWith, Start, status_of


def test_each_layer_gets_the_order_of_its_policy(
    host_with: HostWith, start: Start, call: Call, eventually: Eventually
) -> None:
    host = host_with()
    application = start(host)
    host.events += [BATCH, MemoryEvents(), LFU]
    eventually(lambda: len(host.orders[2]) == 2)
    for layer in (1, 2):
        policy = LayerPolicy({1: 1 << 26, 2: 1 << 28}[layer])
        assert host.orders[layer] == [policy.touch(BATCH.touches), policy.touch(LFU.touches)]
    assert host.orders[1][1] != host.orders[2][1], "what is rare in a layer depends on its size"
    told = status_of(application, call)["data"]["memory_policy"]
    assert told.pop("seconds") >= 0
    assert told == {
        "decided_by": "plugins",
        "layers": [1, 2],
        "batches": 2,
        "events": 6,
        "late": 0,
        "untold": 0,
        "failures": 0,
        "known_entries": 2 * 5,
    }


def test_where_the_program_has_a_policy_it_takes_no_events(
    host_with: HostWith, start: Start, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = host_with()
    told = {"decided_by": "program", "problem": None}
    fake_status = host.status
    monkeypatch.setattr(host, "status", lambda: {**fake_status(), "memory_policy": dict(told)})
    host.events.append(BATCH)
    application = start(host)
    status = status_of(application, call)
    assert (status["status"], status["data"]["memory_policy"]) == ("healthy", told)
    told["problem"] = "it is tired"
    status = status_of(application, call)
    assert status["problems"] == ["the program's memory policy fails: it is tired"]
    application.stop()
    assert len(host.events) == 1
    assert host.orders == {1: [], 2: []}


def test_evictions_alone_set_nothing(
    host_with: HostWith, start: Start, call: Call, eventually: Eventually
) -> None:
    host = host_with()
    application = start(host)
    host.events.append(MemoryEvents((), {2: (Eviction(1, 0, 3),)}))
    eventually(lambda: status_of(application, call)["data"]["memory_policy"]["batches"])
    assert host.orders == {1: [], 2: []}


def test_it_waits_for_a_memory(host_with: HostWith, start: Start, call: Call, eventually: Eventually) -> None:
    host = host_with()
    host.events.append(BATCH)
    host.memory_status = {"problem": "a draft model"}
    application = start(host)
    assert status_of(application, call)["data"]["memory_policy"]["layers"] == []
    host.memory_status = None
    assert len(host.events) == 1
    host.memory_status = {"ram": {"budget": 0}, "disk": {"budget": 1 << 28}, "root": "ab" * 32}
    eventually(lambda: host.orders[2])
    assert host.orders[1] == [], "a layer without a budget has no order"


def test_full_batches_are_taken_at_once(
    host_with: HostWith,
    start: Start,
    call: Call,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(eviction, "POLL_S", 3600.0)
    host = host_with()
    full = [MemoryEvents(tuple(chain(range(facts.MAX_EVENTS), 1 + n * facts.MAX_EVENTS))) for n in range(2)]
    host.events += [*full, BATCH, LFU]
    application = start(host)
    eventually(lambda: len(host.orders[2]) == 3)
    assert len(host.events) == 1
    told = status_of(application, call)["data"]["memory_policy"]
    assert (told["batches"], told["late"]) == (3, 2)


def test_without_a_memory_of_conversations(tmp_path: Path, start: Start, call: Call) -> None:
    for host in (FakeHost(), FakeHost(memory_save_path=str(tmp_path), enable_auto_memory=False)):
        assert "memory_policy" not in status_of(start(host), call)["data"]
    assert not [thread for thread in threading.enumerate() if thread.name == "atlas-eviction"]


def test_a_server_that_does_not_answer(
    host_with: HostWith,
    start: Start,
    call: Call,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(**_: bool) -> None:
        raise ServerError("there is no queue")

    host = host_with()
    with monkeypatch.context() as patch:
        patch.setattr(host, "memory_events", fail)
        application = start(host)
        eventually(lambda: status_of(application, call)["data"]["memory_policy"]["failures"] > 2)
        status = status_of(application, call)
        assert status["problems"] == ["the order of eviction is not learned: there is no queue"]
        assert host.log_text.count("there is no queue") == 1
    eventually(lambda: status_of(application, call)["status"] == "healthy")
