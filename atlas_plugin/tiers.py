"""What a plugin implements that brings a tier of the memory: a place for KV state beyond RAM and disk."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atlas_plugin import facts


@dataclass(frozen=True)
class TierStats:
    """What a tier has; None where it does not know."""

    entries: int | None = None
    bytes: int | None = None


class Tier(ABC):
    """A tier. The server calls it from threads of its own, several at once, and waits `deadline_ms` at most.

    Keys are texts of at most 200 characters of `a-z 0-9 :`. What was put under a key has to come back as it
    was, byte by byte: it is checked, and a wrong value counts as one that is missing. What a method raises
    counts as a failure of the tier, which then is left alone for a while. An answer that comes after the
    deadline is dropped.
    """

    name: str = ""
    """1 to 64 of `A-Z a-z 0-9 . _ -`; without one that of the class."""
    layer: int = facts.FIRST_PLUGIN_LAYER
    """4 to 10: tiers are asked in this order, and each layer has one."""
    deadline_ms: int = 1000
    """How long one call may take, 1 to 60,000."""

    @abstractmethod
    def probe(self, keys: Sequence[str]) -> Sequence[bool]:
        """Whether each of the keys, 1,024 at most, is there. It is also asked about a key `ping`."""

    @abstractmethod
    def get(self, keys: Sequence[str]) -> Iterable[bytes | bytearray | memoryview | None]:
        """The values of the keys, four at most, in order; None, or the end, at the first that is missing."""

    @abstractmethod
    def put(self, key: str, value: bytearray, ttl_s: int) -> None:
        """Keep a value, whole or not at all, until nobody used it for so many seconds; it is yours to keep.

        One at a time, but for calls that are over their deadline.
        """

    @abstractmethod
    def remove(self, keys: Sequence[str]) -> None:
        """Remove values, up to 1,024; that one is not there is fine."""

    def keep(self, keys: Sequence[str], ttl_s: int) -> Sequence[bool]:
        """Keep values that are in use for so many seconds from now; whether each is there."""
        return self.probe(keys)

    def stats(self) -> TierStats | None:
        """What it has, where that is known at once: it is asked with other calls, once a second at most."""
        return None
