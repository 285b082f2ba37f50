"""What the tests of the eviction plugin share."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from atlas_plugin import Response
from atlas_plugin.eviction import Eviction, LayerPolicy, Strategy, Touch
from atlas_plugin.storage.memory_records import MemoryEvents
from atlas_plugin.testing import Application, FakeHost
from tests.unit.eviction.loads import chain

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]
Eventually = Callable[[Callable[[], object]], None]
HostWith = Callable[..., FakeHost]

BATCH = MemoryEvents(tuple(chain([1, 2, 3], 1, tail=True)), {1: (Eviction(99, 0, 3),)})
LFU = MemoryEvents(tuple(chain([4, 5], 10, Strategy.LFU, size=1 << 20)))


def order_of(touches: Sequence[Touch], layer: int = 1) -> list[int]:
    """What a policy of the fake host's budget says of its first touches."""
    return LayerPolicy({1: 1 << 26, 2: 1 << 28}[layer]).touch(touches)


def status_of(application: Application, call: Call) -> Any:
    return msgspec.json.decode(call(application, "GET", "/v1/atlas/status").body)


def known_entries(application: Application, call: Call) -> int:
    count: int = status_of(application, call)["data"]["memory_policy"]["known_entries"]
    return count


def failures_of(application: Application, name: str) -> dict[str, int]:
    [info] = (info for info in application.plugins.infos() if info.name == name)
    return dict(info.hook_failures)
