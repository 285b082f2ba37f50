"""The server as Python sees it: the interface, and its implementation over the functions of `atlas-abi.h`."""

from enum import IntEnum
from typing import Any, Protocol

import orjson

from atlas_plugin.errors import ServerError
from atlas_plugin.settings import Settings


class LogLevel(IntEnum):
    """The numbers of `ATLAS_LOG_*`."""

    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4


class Host(Protocol):
    """What the server offers to plugins. All methods may be called from any thread."""

    def log(self, level: LogLevel, text: str) -> None:
        """Write one record to the server's log; plugins use `logging`, which ends here."""

    def status(self) -> dict[str, Any]:
        """Live facts of the server, `uptime_seconds` among them. Raises ServerError when it cannot answer."""

    def settings(self) -> Settings:
        """The settings in effect now. Raises ServerError when the server cannot answer."""


class EmbeddedHost:
    """The host over `atlas_host_api`. `ffi` and `lib` are those of the embedding module."""

    def __init__(self, ffi: Any, lib: Any, api: Any) -> None:
        self._ffi = ffi
        self._lib = lib
        self._api = api

    def log(self, level: LogLevel, text: str) -> None:
        self._api.log(int(level), self.borrow(text.encode(errors="replace")))

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self._query(self._lib.ATLAS_QUERY_STATUS)
        return status

    def settings(self) -> Settings:
        return Settings(self._query(self._lib.ATLAS_QUERY_SETTINGS))

    def borrow(self, data: bytes) -> tuple[Any, int]:
        """`data` as the initialiser of an atlas_slice; it must live until the call that takes it returns."""
        return self._ffi.from_buffer("char[]", data), len(data)

    def text(self, piece: Any) -> str:
        """The text of an atlas_slice; what is not UTF-8 in it is replaced."""
        return self.bytes(piece).decode(errors="replace")

    def bytes(self, piece: Any) -> bytes:
        """A copy of an atlas_slice's bytes."""
        return bytes(self._ffi.buffer(piece.data, piece.size)) if piece.size else b""

    def _query(self, what: int) -> Any:
        sink = self._api.sink_new()
        if not sink:
            raise ServerError("The server is out of memory")
        try:
            if self._api.query(what, sink) != self._lib.ATLAS_OK:
                raise ServerError("The server did not answer a query for its state")
            return orjson.loads(self.bytes(self._api.sink_text(sink)))
        finally:
            self._api.sink_free(sink)
