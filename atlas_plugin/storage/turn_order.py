"""Makes one conversation of turns that several servers recorded, each without having seen all others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from atlas_plugin import json_text

_INSTRUCTIONS = ("system", "developer")


@dataclass(frozen=True)
class Turn:
    """What one request added: messages as JSON, each an object with a role. `id` is empty where it has none.

    `replaces`: the turns before it are no part of the conversation any more.
    """

    id: str
    messages: Sequence[bytes]
    replaces: bool = False

    @property
    def n_bytes(self) -> int:
        """Of its messages."""
        return sum(map(len, self.messages))

    @property
    def instructions(self) -> "Turn":
        """The same turn with no more than the instructions that it begins with."""
        roles = [json_text.decode(message).get("role") for message in self.messages]
        n_first = next((at for at, role in enumerate(roles) if role not in _INSTRUCTIONS), len(roles))
        return Turn(self.id, self.messages[:n_first], self.replaces)

    @property
    def is_result(self) -> bool:
        """Whether it goes on from a call of a tool."""
        return bool(self.messages) and json_text.decode(self.messages[0]).get("role") == "tool"


def in_order(turns: Iterable[Turn]) -> list[Turn]:
    """The turns as a template takes them.

    Results of tools come behind the turn that called them, whatever was recorded between the two.
    Instructions are kept at the beginning alone: each of several first requests may have brought its own.
    """
    ordered: list[tuple[Turn, list[Any]]] = []
    for turn in turns:
        messages = [json_text.decode(message) for message in turn.messages]
        if turn.replaces:
            ordered.clear()
        n_first = 0
        if ordered:
            while n_first < len(messages) and messages[n_first].get("role") in _INSTRUCTIONS:
                n_first += 1
        kept = Turn(turn.id, turn.messages[n_first:], turn.replaces)
        at = _place(ordered, messages[n_first:])
        ordered.insert(at, (kept, messages[n_first:]))
    return [turn for turn, _ in ordered]


def _place(ordered: Sequence[tuple[Turn, Sequence[Any]]], messages: Sequence[Any]) -> int:
    if messages and messages[0].get("role") == "tool":
        called = messages[0].get("tool_call_id")
        for at in range(len(ordered) - 1, -1, -1):
            last = ordered[at][1][-1] if ordered[at][1] else {}
            if called in _calls(last):
                return at + 1
    return len(ordered)


def _calls(message: Any) -> list[Any]:
    calls = message.get("tool_calls")
    return [call.get("id") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
