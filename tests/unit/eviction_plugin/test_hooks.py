"""Plugins that have their say in eviction, and what becomes of those that fail."""

import re
from pathlib import Path

import pytest

from atlas_plugin.eviction import Eviction, Kind
from atlas_plugin.storage.memory_records import MemoryEvents
from tests.unit.eviction.loads import chain
from tests.unit.eviction_plugin.driving import (
    BATCH,
    Call,
    Eventually,
    HostWith,
    Start,
    failures_of,
    order_of,
    status_of,
)


def test_the_first_plugin_that_answers_wins(
    host_with: HostWith, start: Start, eventually: Eventually
) -> None:
    host = host_with(
        """
        @hookimpl
        def evict_order(layer, touches):
            return [-touch.now for touch in touches] if layer == 1 else None
        """,
        """
        @hookimpl
        def evict_order(layer, touches, evictions):
            return [layer] * len(touches) if evictions else None
        """,
    )
    start(host)
    host.events.append(BATCH._replace(evictions={2: (Eviction(99, 0, 3),)}))
    host.events.append(BATCH)
    eventually(lambda: len(host.orders[2]) == 2)
    assert host.orders[1] == [[-1, -2, -3]] * 2
    assert host.orders[2] == [[2, 2, 2], order_of(BATCH.touches, 2)]


def test_what_is_not_admitted_goes_first(host_with: HostWith, start: Start, eventually: Eventually) -> None:
    host = host_with(
        """
        @hookimpl
        def admit(layer, touch):
            return None if layer == 2 else touch.kind == 1
        """,
        """
        @hookimpl
        def admit(layer): return True if layer == 2 else False
        """,
    )
    start(host)
    host.events.append(BATCH)
    eventually(lambda: host.orders[2])
    expected = order_of(BATCH.touches)
    [[tail, *blocks]] = host.orders[1]
    assert tail == expected[0]
    assert -(2**62) < blocks[0] < blocks[1] < -(2**61)
    assert host.orders[2] == [order_of(BATCH.touches, 2)]


def test_a_plugin_that_raises(host_with: HostWith, start: Start, call: Call, eventually: Eventually) -> None:
    host = host_with(
        """
        @hookimpl
        def evict_order(touches):
            if len(touches) == 3: raise SystemExit("no")

        @hookimpl
        def admit(touch): return touch.parent and 1 / 0
        """
    )
    application = start(host)
    host.events += [BATCH, BATCH]
    eventually(lambda: len(host.orders[2]) == 2)
    assert host.orders[1][0] == order_of(BATCH.touches)
    assert failures_of(application, "p0") == {"evict_order": 4, "admit": 2 * 2 * 3}
    for what in ("evict_order", "admit"):
        assert host.log_text.count(f"plugin 'p0' failed in {what}") == 1
    assert status_of(application, call)["problems"] == [
        "plugin 'p0' fails in evict_order: SystemExit: no",
        "plugin 'p0' fails in admit: TypeError: admit returned int, not bool or None",
    ]
    host.events.append(MemoryEvents(BATCH.touches[:2]))
    eventually(lambda: len(host.orders[2]) == 3)
    [problem] = status_of(application, call)["problems"]
    assert "evict_order" not in problem


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("7", "evict_order returned int, not a sequence of int or None"),
        ("{1: 2}", "evict_order returned dict, not a sequence"),
        ("[1, 2]", "evict_order returned 2 priorities for 3 touches"),
        ("'abc'", "evict_order returned the priority 'a', which is not an int"),
        ("[1, 2, 3.0]", "evict_order returned the priority 3.0, which is not an int"),
        ("[1, 2, True]", "evict_order returned the priority True, which is not an int"),
        ("[1, 2, 1 << 62]", f"evict_order returned the priority {1 << 62}, which has more than 62 bits"),
        ("[1, 2, -1 << 62]", f"the priority -{1 << 62}, which has more than 62 bits"),
    ],
)
def test_bad_orders_are_named(
    host_with: HostWith,
    start: Start,
    eventually: Eventually,
    answer: str,
    problem: str,
) -> None:
    host = host_with(f"@hookimpl\ndef evict_order(): return {answer}")
    application = start(host)
    host.events.append(BATCH)
    eventually(lambda: host.orders[2])
    assert host.orders[1] == [order_of(BATCH.touches)]
    assert failures_of(application, "p0") == {"evict_order": 2}
    assert problem in host.log_text


def test_plugins_are_asked_only_between_startup_and_shutdown(
    host_with: HostWith, start: Start, eventually: Eventually
) -> None:
    host = host_with(
        """
        up = False

        @hookimpl
        def startup():
            global up
            import time
            time.sleep(0.05)
            up = True

        @hookimpl
        def evict_order(touches): return [int(up)] * len(touches)

        @hookimpl
        def shutdown():
            global up
            up = False
        """
    )
    host.events += [BATCH] * 20
    application = start(host)
    host.events += [BATCH] * 5
    eventually(lambda: not host.events)
    application.stop()
    assert [0, 0, 0] not in host.orders[1]
    assert host.orders[1][-1] == [1, 1, 1]


def test_a_policy_that_raises_is_tried_again(
    host_with: HostWith, start: Start, call: Call, eventually: Eventually
) -> None:
    host = host_with()
    bad = MemoryEvents(tuple(chain([7], 1, size=0)))
    application = start(host)
    host.events += [bad, bad, BATCH]
    eventually(lambda: host.orders[2])
    assert [len(orders) for orders in host.orders.values()] == [1, 1], "the server's own order holds"
    assert failures_of(application, "eviction") == {"evict_order": 4}
    assert host.log_text.count("plugin 'eviction' failed in evict_order") == 1
    assert "size must be at least 1 byte" in host.log_text
    assert status_of(application, call)["status"] == "healthy"


def test_the_example_in_the_documentation(host_with: HostWith, start: Start, eventually: Eventually) -> None:
    page = (Path(__file__).parents[3] / "docs/plugins.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```python\n((?:(?!```).)*?evict_order.*?)^```$", page, re.M | re.S)
    host = host_with(example)
    start(host)
    checkpoint, *blocks = BATCH.touches
    host.events.append(MemoryEvents((checkpoint._replace(kind=Kind.CHECKPOINT), *blocks)))
    eventually(lambda: host.orders[2])
    assert host.orders[1] == [[-(2**62) + 2, 2, 3]]
    assert len(host.orders[2][0]) == 3
