"""The functions of `atlas-abi.h` that the server calls; its conventions are cited by their numbers there."""

import itertools
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atlas_plugin.errors import AtlasError, PluginError
from atlas_plugin.host.application import Application
from atlas_plugin.host.host import EmbeddedHost
from atlas_plugin.host.services import Builtins
from atlas_plugin.host.streams import Streams
from atlas_plugin.http import StreamResponse
from atlas_plugin.metrics.calls import CallWaits
from atlas_plugin.version import ABI_VERSION

log = logging.getLogger("atlas")


def bind(ffi: Any, lib: Any, builtins: Builtins) -> None:
    """Install the functions; called once, by the embedding module. `builtins` makes ATLAS's own plugins.

    Raises ImportError if versions differ.
    """
    if lib.ATLAS_ABI_VERSION != ABI_VERSION:
        raise ImportError(
            f"atlas_plugin in {sys.prefix} has ABI version {ABI_VERSION}, "
            f"this server {lib.ATLAS_ABI_VERSION}: install the atlas_plugin of the server's own source tree"
        )
    entry = _EntryPoints(ffi, lib, builtins)
    for function in (entry.start, entry.request, entry.call, entry.stream_next, entry.stop):
        ffi.def_extern(f"atlas_python_{function.__name__}", error=lib.ATLAS_FAILED, onerror=_report)(
            _contained(function, lib.ATLAS_FAILED)
        )
    ffi.def_extern("atlas_python_stream_close", onerror=_report)(_contained(entry.stream_close, None))


def _contained(function: Callable[..., Any], failed: int | None) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except BaseException:
            log.exception("atlas_python_%s failed", function.__name__)
            return failed

    return call


def _report(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    log.error("a call from the server failed", exc_info=(kind, error, traceback))


@dataclass(frozen=True)
class _Embedded:
    """All that one host has in Python."""

    host: EmbeddedHost
    application: Application
    streams: Streams
    waits: CallWaits


class _EntryPoints:
    """One method for each function of the header. Convention 5: any thread, several at once."""

    def __init__(self, ffi: Any, lib: Any, builtins: Builtins) -> None:
        self._ffi = ffi
        self._lib = lib
        self._builtins = builtins
        self._numbers = itertools.count(1)
        # By number. One that was stopped stays, as a call that began before may come late.
        self._applications: dict[int, _Embedded] = {}

    def start(self, api: Any, host: Any, application: Any, sink: Any) -> int:
        if api.abi_version != self._lib.ATLAS_ABI_VERSION:
            # The rest of the struct cannot be trusted, its log function included.
            print(f"atlas_plugin: the host speaks ABI version {api.abi_version}", file=sys.stderr)
            return self._failed()
        embedded_host = EmbeddedHost(self._ffi, self._lib, api, host)
        waits = CallWaits()
        made = _Embedded(
            embedded_host, Application(embedded_host, self._builtins, waits.families), Streams(), waits
        )
        try:
            made.application.start()
        except BaseException as error:
            if not isinstance(error, PluginError):
                log.exception("the plugins could not be started")
            embedded_host.write(sink, " ".join(f"{error}".split()).encode() or type(error).__name__.encode())
            return self._failed()
        number = application[0] = next(self._numbers)
        self._applications[number] = made
        return self._ok()

    def request(self, application: int, request: Any, called_ns: int, sink: Any) -> int:
        of = self._applications[application]
        of.waits.add("request", time.monotonic_ns() - called_ns)
        response = of.application.handle(of.host.read(request))
        of.host.write_head(sink, response.status, response.content_type, response.headers)
        if isinstance(response, StreamResponse):
            of.host.write_stream(sink, of.streams.open(response.chunks))
        else:
            of.host.write(sink, response.body)
        return self._ok()

    def call(self, application: int, what: int, argument: Any, called_ns: int, sink: Any) -> int:
        of = self._applications[application]
        of.waits.add("call", time.monotonic_ns() - called_ns)
        try:
            answer = of.application.call(what, of.host.bytes(argument))
        except AtlasError as error:
            of.host.write_head(sink, error.status)
            of.host.write(sink, error.message.encode())
            return self._failed()
        of.host.write(sink, answer)
        return self._ok()

    def stream_next(self, application: int, stream: int, called_ns: int, sink: Any) -> int:
        of = self._applications[application]
        of.waits.add("stream_next", time.monotonic_ns() - called_ns)
        piece = of.streams.next(stream)
        if piece is None:
            end: int = self._lib.ATLAS_STREAM_END
            return end
        of.host.write(sink, piece)
        return self._ok()

    def stream_close(self, application: int, stream: int) -> None:
        self._applications[application].streams.close(stream)

    def stop(self, application: int) -> int:
        of = self._applications[application]
        for error in of.streams.stop():
            log.warning("a stream failed while it was closed", exc_info=error)
        of.application.stop()
        return self._ok()

    def _ok(self) -> int:
        ok: int = self._lib.ATLAS_OK
        return ok

    def _failed(self) -> int:
        failed: int = self._lib.ATLAS_FAILED
        return failed
