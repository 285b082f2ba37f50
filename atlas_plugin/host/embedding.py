"""The functions of `atlas-abi.h` that the server calls; its conventions are cited by their numbers there."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from atlas_plugin.errors import AtlasError, PluginError
from atlas_plugin.host.application import Application
from atlas_plugin.host.host import EmbeddedHost
from atlas_plugin.host.services import Builtins
from atlas_plugin.host.streams import Streams
from atlas_plugin.http import Headers, Request, StreamResponse, parse_query
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


class _EntryPoints:
    """One method for each function of the header. Convention 5: any thread, several at once."""

    _host: EmbeddedHost
    _api: Any
    _application: Application

    def __init__(self, ffi: Any, lib: Any, builtins: Builtins) -> None:
        self._ffi = ffi
        self._lib = lib
        self._builtins = builtins
        self._streams = Streams()
        self._waits = CallWaits()

    def start(self, api: Any, sink: Any) -> int:
        if api.abi_version != self._lib.ATLAS_ABI_VERSION:
            # The rest of the struct cannot be trusted, its log function included.
            print(f"atlas_plugin: the host speaks ABI version {api.abi_version}", file=sys.stderr)
            return self._failed()
        self._api = api
        self._host = EmbeddedHost(self._ffi, self._lib, api)
        self._application = Application(self._host, self._builtins, self._waits.families)
        try:
            self._application.start()
        except BaseException as error:
            if not isinstance(error, PluginError):
                log.exception("the plugins could not be started")
            self._write(sink, " ".join(f"{error}".split()).encode() or type(error).__name__.encode())
            return self._failed()
        return self._ok()

    def request(self, request: Any, called_ns: int, sink: Any) -> int:
        self._waits.add("request", time.monotonic_ns() - called_ns)
        response = self._application.handle(self._read(request))
        self._api.sink_status(sink, response.status)
        if response.content_type is not None:
            self._header(sink, "Content-Type", response.content_type)
        for name, value in response.headers.items():
            self._header(sink, name, value)
        if isinstance(response, StreamResponse):
            self._api.sink_stream(sink, self._streams.open(response.chunks))
        else:
            self._write(sink, response.body)
        return self._ok()

    def call(self, what: int, argument: Any, called_ns: int, sink: Any) -> int:
        self._waits.add("call", time.monotonic_ns() - called_ns)
        try:
            answer = self._application.call(what, self._host.bytes(argument))
        except AtlasError as error:
            self._api.sink_status(sink, error.status)
            self._write(sink, error.message.encode())
            return self._failed()
        self._write(sink, answer)
        return self._ok()

    def stream_next(self, stream: int, called_ns: int, sink: Any) -> int:
        self._waits.add("stream_next", time.monotonic_ns() - called_ns)
        piece = self._streams.next(stream)
        if piece is None:
            end: int = self._lib.ATLAS_STREAM_END
            return end
        self._write(sink, piece)
        return self._ok()

    def stream_close(self, stream: int) -> None:
        self._streams.close(stream)

    def stop(self) -> int:
        for error in self._streams.stop():
            log.warning("a stream failed while it was closed", exc_info=error)
        self._application.stop()
        return self._ok()

    def _read(self, request: Any) -> Request:
        text = self._host.text
        pairs = (request.headers[i] for i in range(request.n_headers))
        return Request(
            method=text(request.method),
            path=text(request.path),
            query=parse_query(text(request.query)),
            headers=Headers((text(pair.name), text(pair.value)) for pair in pairs),
            body=self._host.bytes(request.body),
            tenant=text(request.tenant),
            is_admin=bool(request.is_admin),
        )

    def _header(self, sink: Any, name: str, value: str) -> None:
        # Named, as borrowed memory must outlive the call (convention 3).
        name_bytes, value_bytes = name.encode(), value.encode()
        self._api.sink_header(sink, self._host.borrow(name_bytes), self._host.borrow(value_bytes))

    def _write(self, sink: Any, data: bytes) -> None:
        self._api.sink_body(sink, self._host.borrow(data))

    def _ok(self) -> int:
        ok: int = self._lib.ATLAS_OK
        return ok

    def _failed(self) -> int:
        failed: int = self._lib.ATLAS_FAILED
        return failed
