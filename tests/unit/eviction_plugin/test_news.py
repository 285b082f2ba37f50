"""What plugins are told about the memory: `on_saved` and `on_restored`."""

import threading
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin import Restored, Saved
from atlas_plugin.eviction import Kind
from atlas_plugin.memory import teller
from atlas_plugin.storage.memory_records import MemoryEvents, SavedEntry
from tests.unit.eviction_plugin.driving import (
    BATCH,
    Call,
    Eventually,
    HostWith,
    Start,
    failures_of,
    status_of,
)
from tests.unit.session_rows import use

SAVED: list[Saved] = []
RESTORED: list[Restored] = []
BLOCKED, MAY_GO = threading.Event(), threading.Event()

LISTENER = """
    from tests.unit.eviction_plugin.test_news import RESTORED, SAVED

    @hookimpl
    def on_saved(saved): SAVED.append(saved)

    @hookimpl
    def on_restored(restored): RESTORED.append(restored)
"""
QUIET = "@hookimpl\ndef shutdown(): pass\n"
SLOW = """
    from tests.unit.eviction_plugin.test_news import BLOCKED, MAY_GO, SAVED

    @hookimpl
    def on_saved(saved):
        SAVED.append(saved)
        BLOCKED.set()
        MAY_GO.wait(20)
"""


@pytest.fixture(autouse=True)
def told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teller, "POLL_S", 0.002)
    SAVED.clear()
    RESTORED.clear()
    BLOCKED.clear()
    MAY_GO.clear()


def entry(number: int) -> SavedEntry:
    return SavedEntry(number, number - 1, 4096, Kind.TAIL, 0.25, 17)


def record(number: int, result: str = "restored", **other: Any) -> dict[str, Any]:
    return {
        "number": number,
        "request_id": f"r{number}",
        "route": "chat",
        "session_id": "",
        "tenant": "",
        "ms": {"restore": 12.5},
        "tokens": {"prompt": 100, "reused": 90, "answer": 4},
        "memory": {"result": result, "layer": 2 if result == "restored" else 0},
        **other,
    }


def news_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "atlas-memory-news"]


def test_what_became_durable(host_with: HostWith, start: Start, call: Call, eventually: Eventually) -> None:
    host = host_with(LISTENER)
    names = [number.to_bytes(8, "little").hex() + "00" * 24 for number in range(3, 6)]
    use(host, "0123456789abcdef/ada", chain=names)
    host.events.append(MemoryEvents(BATCH.touches, BATCH.evictions, (entry(4), entry(9))))
    application = start(host)
    eventually(lambda: len(SAVED) == 2)
    assert host.is_saved_wanted
    assert SAVED[0] == Saved(
        key=4,
        parent=3,
        kind=Kind.TAIL,
        tokens=17,
        bytes=4096,
        seconds=0.25,
        session_id="ada",
        tenant="0123456789abcdef",
        layer=2,
    )
    assert (SAVED[1].session_id, SAVED[1].tenant) == ("", "")
    # Those who decide get what they got before.
    eventually(lambda: len(host.orders[1]) == len(host.orders[2]) == 1)
    assert status_of(application, call)["data"]["memory_policy"]["untold"] == 0


def test_saved_alone_is_no_touch(host_with: HostWith, start: Start, eventually: Eventually) -> None:
    host = host_with(LISTENER)
    host.events.append(MemoryEvents(saved=(entry(4),)))
    start(host)
    eventually(lambda: SAVED)
    assert host.orders == {1: [], 2: []}


def test_what_was_restored(host_with: HostWith, start: Start, eventually: Eventually) -> None:
    host = host_with(LISTENER)
    host.requests_ended = [
        record(1),
        record(2, "no_match"),
        record(3, session_id="tenant/ada", tenant="tenant"),
    ]
    start(host)
    eventually(lambda: len(RESTORED) == 2)
    assert RESTORED[0].session_id == ""
    assert RESTORED[1] == Restored(
        layer=2,
        tokens=90,
        prompt_tokens=100,
        seconds=0.0125,
        request_id="r3",
        route="chat",
        session_id="ada",
        tenant="tenant",
    )
    host.requests_ended.append(record(4))
    eventually(lambda: len(RESTORED) == 3)


def test_without_a_hook_nothing_is_made(host_with: HostWith, start: Start, eventually: Eventually) -> None:
    host = host_with(QUIET)
    host.events += [BATCH, BATCH]
    start(host)
    eventually(lambda: len(host.orders[1]) == 2)
    assert not host.is_saved_wanted
    assert news_threads() == []


def test_a_plugin_that_comes_later_hears_what_comes_later(
    host_with: HostWith, start: Start, eventually: Eventually
) -> None:
    host = host_with(QUIET)
    host.events.append(BATCH)
    host.requests_ended = [record(1)]
    application = start(host)
    eventually(lambda: host.orders[1])
    [path] = host.settings().texts("plugins")
    Path(path).write_text("from atlas_plugin import hookimpl\n" + LISTENER.replace("\n    ", "\n"))
    application.plugins.reload()
    eventually(lambda: host.is_saved_wanted and news_threads())
    host.events.append(MemoryEvents(saved=(entry(4),)))
    eventually(lambda: SAVED)
    host.requests_ended.append(record(2))
    eventually(lambda: RESTORED)
    assert [restored.request_id for restored in RESTORED] == ["r2"]


def test_one_that_hangs_holds_up_no_order_and_what_it_misses_is_counted(
    host_with: HostWith, start: Start, call: Call, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teller, "_MAX_WAITING", 10)
    host = host_with(SLOW)
    host.events.append(MemoryEvents(saved=(entry(1),)))
    application = start(host)
    assert BLOCKED.wait(20)
    for number in range(5):
        host.events.append(
            MemoryEvents(BATCH.touches, {}, tuple(map(entry, range(10 * number + 2, 10 * number + 12))))
        )
    eventually(lambda: len(host.orders[1]) == 5)
    eventually(lambda: status_of(application, call)["data"]["memory_policy"]["untold"] == 40)
    MAY_GO.set()
    eventually(lambda: len(SAVED) == 11)
    assert [saved.key for saved in SAVED] == list(range(1, 12))


def test_requests_that_were_forgotten_are_counted(
    host_with: HostWith, start: Start, call: Call, eventually: Eventually
) -> None:
    host = host_with(LISTENER)
    host.requests_ended = [record(8)]
    application = start(host)
    eventually(lambda: RESTORED)
    assert status_of(application, call)["data"]["memory_policy"]["untold"] == 7


def test_one_that_raises_keeps_nobody_from_hearing(
    host_with: HostWith, start: Start, eventually: Eventually
) -> None:
    host = host_with("@hookimpl\ndef on_saved(): 1 / 0\n", LISTENER)
    host.events.append(MemoryEvents(saved=(entry(4), entry(5))))
    application = start(host)
    eventually(lambda: len(SAVED) == 2)
    assert failures_of(application, "p0") == {"on_saved": 2}


def test_the_policy_of_a_program_takes_the_events(
    host_with: HostWith, start: Start, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = host_with(LISTENER)
    status = host.status
    monkeypatch.setattr(host, "status", lambda: {**status(), "memory_policy": {"problem": ""}})
    host.events.append(MemoryEvents(BATCH.touches, {}, (entry(4),)))
    host.requests_ended = [record(1)]
    start(host)
    eventually(lambda: RESTORED)
    assert SAVED == []
    assert len(host.events) == 1
