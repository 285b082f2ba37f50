"""The calls of tiers that plugins bring: which there are, and running one."""

import re
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from atlas_plugin import facts, json_text
from atlas_plugin.errors import PluginError
from atlas_plugin.host.hook_server import HookCall, HookServer
from atlas_plugin.host.hooks import Hooks
from atlas_plugin.host.verdicts import Step
from atlas_plugin.http import Response
from atlas_plugin.tiers import Tier, TierStats

_HOOK = "tier"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STATS_EVERY_S = 1.0
_MAX_REASON = 500
_BEGIN = Step(facts.STEP_BEGIN)


@dataclass(frozen=True, eq=False)
class Brought:
    """A tier, and who brings it. `is_new` where the server cannot know what it has."""

    plugin: str
    tier: Tier
    is_new: bool

    @property
    def name(self) -> str:
        """Its own, or that of its class."""
        return name_of(self.tier)


def name_of(tier: Tier) -> str:
    """A tier's name, or that of its class."""
    return tier.name or type(tier).__name__


def tiers_of(plugin: str, answers: Iterable[Any]) -> tuple[Tier, ...]:
    """What `register_tiers` returned, checked. Raises PluginError."""
    tiers: list[Tier] = []
    for answer in answers:
        listed = answer if isinstance(answer, Sequence) else [answer]
        for tier in listed:
            if not isinstance(tier, Tier):
                raise PluginError(
                    plugin, f"register_tiers returned {type(tier).__name__}: it has to be a list of Tier"
                )
            _check(plugin, tier)
            tiers.append(tier)
    return tuple(tiers)


def _check(plugin: str, tier: Tier) -> None:
    name, layer, deadline_ms = name_of(tier), tier.layer, tier.deadline_ms
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(plugin, f"a tier's name is {name!r}: give 1 to 64 of A-Z a-z 0-9 . _ -")
    first, last = facts.FIRST_PLUGIN_LAYER, facts.MAX_LAYER
    if type(layer) is not int or not first <= layer <= last:
        raise PluginError(
            plugin,
            f"tier '{name}' asks for layer {layer!r}: 1 is RAM, 2 the disk, 3 what servers share, and "
            f"there are {last}; give its `layer` a number from {first} to {last}",
        )
    if type(deadline_ms) is not int or not 1 <= deadline_ms <= facts.MAX_DEADLINE_MS:
        raise PluginError(
            plugin,
            f"tier '{name}' has a deadline_ms of {deadline_ms!r}: give 1 to {facts.MAX_DEADLINE_MS}",
        )


class TierTable:
    """Which tiers there are, by the position in which the server knows them. Any thread."""

    def __init__(self, hooks: Hooks, number: int, brought: Sequence[Brought]) -> None:
        self.number = number
        self._hooks = hooks
        self._brought = tuple(brought)
        self._stats_at = [0.0] * len(self._brought)
        for one in self._brought:
            hooks.count_too(one.plugin, _HOOK)

    def rows(self) -> list[dict[str, Any]]:
        """As ATLAS_QUERY_TIERS takes them."""
        return [
            {
                "plugin": one.plugin,
                "tier": one.name,
                "layer": one.tier.layer,
                "deadline_ms": one.tier.deadline_ms,
                "is_new": one.is_new,
            }
            for one in self._brought
        ]

    def of_plugin(self, name: str) -> list[dict[str, Any]]:
        """Those of one plugin, as the listing of plugins shows them."""
        return [
            {"name": row["tier"], "layer": row["layer"], "deadline_ms": row["deadline_ms"]}
            for row in self.rows()
            if row["plugin"] == name
        ]

    def run(self, position: int, call: HookCall, read: Callable[[], bytearray | None]) -> Step:
        """Have a tier do what is asked; what it raises, or answers wrongly, is counted, and FAIL says why."""
        one = self._brought[position]
        try:
            head = json_text.decode(call.head)
            keys = call.body.decode().split("\n")
            pieces = self._hooks.attempt(one.plugin, _HOOK, lambda: _do(one.tier, head, keys, read))
            return Step(facts.STEP_RESPOND, Response(body=b"", headers=self._held(position)), pieces)
        except BaseException as error:
            return Step(facts.STEP_FAIL, Response(body=_line_of(error).encode(errors="replace")))

    def _held(self, position: int) -> Mapping[str, str]:
        """What the tier says that it has, where it is to be asked again."""
        now = time.monotonic()
        if now - self._stats_at[position] < _STATS_EVERY_S:
            return {}
        self._stats_at[position] = now
        one = self._brought[position]
        with suppress(BaseException):
            return self._hooks.attempt(one.plugin, _HOOK, lambda: _numbers(one.tier.stats()))
        return {}


def _line_of(error: BaseException) -> str:
    """One line, not too long: it goes into the status and the log."""
    return " ".join(traceback.format_exception_only(error)[-1].split())[:_MAX_REASON]


def _numbers(stats: TierStats | None) -> dict[str, str]:
    if stats is None:
        return {}
    if not isinstance(stats, TierStats):
        raise TypeError(f"stats returned {type(stats).__name__}, not TierStats or None")
    found = {"entries": stats.entries, "bytes": stats.bytes}
    for name, value in found.items():
        if value is not None and (type(value) is not int or not 0 <= value < 1 << 63):
            raise ValueError(f"stats has {name} = {value!r}: it has to be an int from 0, or None")
    return {name: f"{value}" for name, value in found.items() if value is not None}


def _do(
    tier: Tier, head: Mapping[str, Any], keys: Sequence[str], read: Callable[[], bytearray | None]
) -> Sequence[Any]:
    """The pieces of the answer."""
    what, ttl_s = head["do"], head["ttl_s"]
    if what == "probe":
        return [_digits("probe", tier.probe(keys), len(keys))]
    if what == "keep":
        return [_digits("keep", tier.keep(keys, ttl_s), len(keys))]
    if what == "get":
        return _values(tier.get(keys), len(keys))
    if what == "put":
        value = read()
        if value is not None:
            tier.put(keys[0], value, ttl_s)
        return []
    tier.remove(keys)
    return []


def _digits(what: str, answer: Any, count: int) -> bytes:
    is_there = list(islice(_iterated(what, answer), count + 1))
    if len(is_there) != count:
        raise ValueError(f"{what} has another number of answers than of keys, {count}")
    for one in is_there:
        if type(one) is not bool:
            raise TypeError(f"{what} answered {type(one).__name__}, not bool, for a key")
    return bytes(48 + one for one in is_there)


def _values(answer: Any, count: int) -> list[Any]:
    pieces: list[Any] = []
    total = 0
    for number, value in enumerate(islice(_iterated("get", answer), count + 1)):
        if number == count:
            raise ValueError(f"get has more values than there are keys, {count}")
        if value is None:
            break
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(f"get answered {type(value).__name__}, not bytes, for a key")
        view = memoryview(value)
        total += view.nbytes
        if not view.c_contiguous or total > facts.MAX_TIER_BYTES:
            most = facts.MAX_TIER_BYTES
            raise ValueError(f"get answered {total} bytes: {most} are taken at most, in one piece each")
        pieces += [view.nbytes.to_bytes(8, "little"), value]
    return pieces


def _iterated(what: str, answer: Any) -> Iterable[Any]:
    if not isinstance(answer, Iterable) or isinstance(answer, str | bytes | bytearray | memoryview | Mapping):
        raise TypeError(f"{what} returned {type(answer).__name__}, not a list")
    return answer


class TierCalls:
    """Serves the calls that the server hands over. `tables` are by number. Any thread."""

    def __init__(self, server: HookServer, tables: Mapping[int, TierTable]) -> None:
        self._server = server
        self._tables = tables

    def serve(self, call: HookCall) -> None:
        """Answer one call."""
        queue, number = facts.QUEUE_TIERS, call.number
        position = self._server.hook_step(queue, number, _BEGIN)
        if position >= 0:
            step = self._tables[call.table].run(
                position, call, lambda: self._server.read_payload(queue, number, call.payload)
            )
            self._server.hook_step(queue, number, step)
