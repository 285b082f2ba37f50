"""Encryption of what Python keeps on disk: the server does it, with the key that only it has."""

from typing import Protocol

from atlas_plugin import facts
from atlas_plugin.errors import ServerError

_MAGIC = b"ATLASEAL"
"""Begins what is encrypted. JSON, and what else is kept, begins otherwise."""


class Sealer(Protocol):
    """The host, as far as it is needed here."""

    def seal(self, name: str, data: bytes) -> bytes:
        """Encrypt."""

    def unseal(self, name: str, data: bytes) -> bytes:
        """The bytes that were encrypted under the name. Raises ServerError for others."""


class Sealing:
    """What is done to values before they are kept, and after. Any thread.

    Each has a name, by which alone it can be had back. Without a sealer values are kept as they are.
    """

    def __init__(self, sealer: Sealer | None = None) -> None:
        self._sealer = sealer

    @property
    def is_on(self) -> bool:
        """Whether values are encrypted."""
        return self._sealer is not None

    @property
    def extra(self) -> int:
        """By how many bytes a kept value is longer."""
        return facts.SEALED_EXTRA if self.is_on else 0

    def is_sealed(self, kept: bytes) -> bool:
        """Whether a kept value is encrypted."""
        return kept.startswith(_MAGIC)

    def close(self, name: str, data: bytes) -> bytes:
        """The value as it is to be kept."""
        return data if self._sealer is None else self._sealer.seal(name, data)

    def open(self, name: str, kept: bytes) -> bytes:
        """The value that was kept, encrypted or from before that was switched on. Raises ServerError."""
        if not self.is_sealed(kept):
            return kept
        if self._sealer is None:
            raise ServerError(f"{name} is encrypted, and no key is given")
        try:
            return self._sealer.unseal(name, kept)
        except ServerError:
            raise ServerError(f"{name} is damaged, or was encrypted by another key") from None
