"""A plugin's tier of the memory, asked as the server asks it."""

from collections.abc import Sequence
from typing import Any

from atlas_plugin import facts, json_text
from atlas_plugin.host.hook_server import HookCall
from atlas_plugin.host.tier_calls import TierTable


class TierFailedError(Exception):
    """The tier raised, or answered what it may not; the text is what the server's status would say."""


class AskedTier:
    """A tier whose answers are checked as the server checks them. Any thread.

    All members raise TierFailedError. `held` is what the tier last said that it has.
    """

    def __init__(self, table: TierTable, position: int) -> None:
        self._table = table
        self._position = position
        self.held: dict[str, int] = {}

    def probe(self, keys: Sequence[str]) -> list[bool]:
        """Whether each is there."""
        return [digit == ord("1") for digit in self._ask("probe", keys)]

    def get(self, keys: Sequence[str]) -> list[bytes]:
        """The values, up to the first that is missing."""
        answer, values = self._ask("get", keys), []
        while answer:
            end = 8 + int.from_bytes(answer[:8], "little")
            values.append(answer[8:end])
            answer = answer[end:]
        return values

    def put(self, key: str, value: bytes, ttl_s: int = 60) -> None:
        """Have it kept."""
        self._ask("put", [key], ttl_s, value)

    def keep(self, keys: Sequence[str], ttl_s: int = 60) -> list[bool]:
        """Have them stay; whether each is there."""
        return [digit == ord("1") for digit in self._ask("keep", keys, ttl_s)]

    def remove(self, keys: Sequence[str]) -> None:
        """Have them removed."""
        self._ask("remove", keys)

    def _ask(self, what: str, keys: Sequence[str], ttl_s: int = 0, value: bytes = b"") -> bytes:
        head: dict[str, Any] = {"do": what, "ttl_s": ttl_s}
        body = "\n".join(keys).encode()
        call = HookCall(1, 0, 0, facts.HOOK_TIER, json_text.encode(head), body, len(value))
        step = self._table.run(self._position, call, lambda: bytearray(value))
        assert step.response is not None
        if step.number != facts.STEP_RESPOND:
            raise TierFailedError(step.response.body.decode())
        self.held |= {name: int(number) for name, number in step.response.headers.items()}
        return b"".join(bytes(piece) for piece in step.pieces)
