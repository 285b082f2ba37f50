"""Who hands the calls of hooks on the path of requests, and of tiers, to Python."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from atlas_plugin.host.verdicts import Step


@dataclass(frozen=True)
class HookCall:
    """One call, as the server hands it over."""

    number: int
    table: int
    request: int
    hook: int
    head: bytes
    body: bytes
    payload: int = 0
    """Bytes that `read_payload` reads."""


class HookServer(Protocol):
    """Who hands the calls over. Any thread may call all but `hook_worker_wanted`.

    `queue` is a number of ATLAS_QUEUE_….
    """

    def hook_worker_wanted(self, queue: int, has_failed: bool) -> bool:
        """Wait until one more worker is needed; False: never again. For one thread of each queue.

        `has_failed` says that the one needed last could not be made.
        """

    def take_hook_call(self, queue: int, previous: int) -> HookCall | None:
        """Wait for a call; None: the worker is to end. `previous` is its last call; 0: it is new."""

    def hook_step(self, queue: int, number: int, step: Step) -> int:
        """Say how the call goes on; which implementation to ask next, below 0: leave the call."""

    def read_payload(self, queue: int, number: int, size: int) -> bytearray | None:
        """The bytes that go with a call, a copy; None: nobody waits for it any more."""

    def set_request_hooks(self, number: int, rows: Sequence[dict[str, Any]]) -> None:
        """From now on new requests are asked about by these, as ATLAS_QUERY_HOOKS takes them."""

    def set_tiers(self, number: int, rows: Sequence[dict[str, Any]]) -> bool:
        """From now on the memory has these, as ATLAS_QUERY_TIERS takes them; False: there is no memory."""

    def hook_tables(self) -> list[int]:
        """The numbers of those that are asked now, or by a call that goes on."""

    def hook_tallies(self) -> list[dict[str, Any]]:
        """What became of every hook since the server's start, as ATLAS_QUERY_HOOKS answers it."""

    def enable_hooks(self, plugin: str) -> bool:
        """Turn a plugin's hooks on again; whether any was off."""
