"""Makes one conversation of turns that several servers recorded, each without having seen all others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from atlas_plugin import json_text
from atlas_plugin.responses.forms import answered_call_of, calls_of, is_item, role_of

_INSTRUCTIONS = ("system", "developer")


@dataclass(frozen=True)
class Turn:
    """What one request added: messages or items as JSON. `id` is empty where it has none.

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
        roles = [role_of(json_text.decode(message)) for message in self.messages]
        n_first = next((at for at, role in enumerate(roles) if role not in _INSTRUCTIONS), len(roles))
        return Turn(self.id, self.messages[:n_first], self.replaces)

    @property
    def is_result(self) -> bool:
        """Whether it goes on from a call of a tool."""
        return bool(self.messages) and role_of(json_text.decode(self.messages[0])) == "tool"


def in_order(turns: Iterable[Turn]) -> list[Turn]:
    """The turns as a template takes them.

    Results of tools come behind the turn that called them, whatever was recorded between the two.
    Instructions in messages are kept at the beginning alone: each of several first requests may have
    brought its own. Items stay where a client put them.
    """
    ordered: list[tuple[Turn, list[Any]]] = []
    for turn in turns:
        messages = [json_text.decode(message) for message in turn.messages]
        if turn.replaces:
            ordered.clear()
        n_first = 0
        if ordered:
            while n_first < len(messages) and _is_instruction(messages[n_first]):
                n_first += 1
        kept = Turn(turn.id, turn.messages[n_first:], turn.replaces)
        at = _place(ordered, messages[n_first:])
        ordered.insert(at, (kept, messages[n_first:]))
    return [turn for turn, _ in ordered]


def _is_instruction(message: Any) -> bool:
    return role_of(message) in _INSTRUCTIONS and not is_item(message)


def _place(ordered: Sequence[tuple[Turn, Sequence[Any]]], messages: Sequence[Any]) -> int:
    called = answered_call_of(messages[0]) if messages else None
    if called is not None:
        for at in range(len(ordered) - 1, -1, -1):
            if called in _last_calls(ordered[at][1]):
                return at + 1
    return len(ordered)


def _last_calls(messages: Sequence[Any]) -> list[Any]:
    """Those that the turn ends with."""
    answer = takewhile(lambda message: role_of(message) == "assistant", reversed(messages))
    return [call for message in answer for call in calls_of(message)]
