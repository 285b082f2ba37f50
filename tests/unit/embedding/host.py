"""The functions of atlas-abi.h as the server sees them: real cffi types, a host made of callbacks."""

import re
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cffi  # type: ignore[import-untyped]
import msgspec

from atlas_plugin import ABI_VERSION
from atlas_plugin.builtin import make_builtins
from atlas_plugin.host import embedding
from atlas_plugin.host.hook_server import HookCall
from atlas_plugin.host.host import LogLevel
from atlas_plugin.testing import FakeHost

HEADER = Path(__file__).parents[3] / "native/include/atlas-abi.h"


def declarations(part: str) -> str:
    """A part of the header that cffi reads."""
    header = HEADER.read_text(encoding="utf-8")
    match = re.search(rf"/\* cffi: {part} begin \*/(.*?)/\* cffi: {part} end \*/", header, re.DOTALL)
    assert match
    return match[1]


@dataclass
class Sink:
    """What the server would make an HTTP answer from."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: int | None = None

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = msgspec.json.decode(self.body)["error"]
        assert error["code"] == self.status
        return error


class Server:
    """Stands in for the C++ side: keeps the functions that `bind` installs, and calls them.

    `beside` is another host of the same process, whose functions this one shares, and whose log.
    """

    ffi: Any
    lib: Any
    api: Any
    functions: dict[str, Callable[..., Any]]
    _is_wanted = True
    externs: dict[str, dict[str, Any]]
    _handles: dict[Any, Any]

    def __init__(self, fake: FakeHost, beside: "Server | None" = None) -> None:
        self.fake = fake
        self.broken = False
        self.reason = b""
        self.application = 0
        self._buffers: list[Any] = []
        self.calls: SimpleQueue[HookCall | None] = SimpleQueue()
        """What workers take; None ends one, and with it the wish for more."""
        self.steps: SimpleQueue[tuple[int, Sink | None]] = SimpleQueue()
        """What workers said."""
        self.n_implementations = 1
        self.payload = b""
        """What goes with each call."""
        self._position = 0
        if beside is not None:
            self.ffi, self.lib, self.functions = beside.ffi, beside.lib, beside.functions
            self.externs, self.api, self._handles = beside.externs, beside.api, beside._handles
            self.host = self.ffi.new_handle(self)
            return
        self.ffi = cffi.FFI()
        self.ffi.cdef(declarations("types"))
        self.lib = self.ffi.dlopen(None)
        self.functions, self.externs, self._handles = {}, {}, {}
        self.host = self.ffi.new_handle(self)
        embedding.bind(self, self.lib, make_builtins)
        self.api = self.ffi.new("atlas_host_api *")
        self.api.abi_version = ABI_VERSION
        self._callbacks = {
            name: self.ffi.callback(member.type, getattr(self, f"_{name}"))
            for name, member in self.ffi.typeof("atlas_host_api").fields
            if member.type.kind == "function"
        }
        for name, callback in self._callbacks.items():
            setattr(self.api, name, callback)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ffi, name)

    def def_extern(self, name: str, **options: Any) -> Callable[[Callable[..., Any]], None]:
        self.externs[name] = options
        return lambda function: self.functions.__setitem__(name, function)

    def start(self) -> tuple[int, Sink]:
        number = self.ffi.new("uint64_t *")
        result = self._call("atlas_python_start", self.api, self.host, number)
        self.application = number[0]
        return result

    def stop(self) -> int:
        status: int = self.functions["atlas_python_stop"](self.application)
        return status

    def request(
        self,
        method: str,
        path: bytes,
        query: bytes = b"",
        body: bytes = b"",
        headers: dict[str, bytes] | None = None,
        tenant: bytes = b"",
        is_admin: bool = True,
    ) -> tuple[int, Sink]:
        pairs = [(self._slice(name.encode()), self._slice(value)) for name, value in (headers or {}).items()]
        array = self.ffi.new("atlas_header[]", pairs) if pairs else self.ffi.NULL
        fields = [self._slice(part) for part in (method.encode(), path, query, body)]
        request = self.ffi.new(
            "atlas_http_request *", [*fields, array, len(pairs), self._slice(tenant), is_admin]
        )
        result = self._call("atlas_python_request", self.application, request, time.monotonic_ns())
        # Borrowed memory is gone once the call returns; what Python kept of it would show.
        for buffer in self._buffers:
            self.ffi.buffer(buffer)[:] = b"\xee" * len(buffer)
        self._buffers.clear()
        return result

    def call(self, what: int, **argument: Any) -> tuple[int, Sink]:
        data = msgspec.json.encode(argument)
        sink = Sink()
        text = self.ffi.new("atlas_slice *", self._slice(data))
        return self.functions["atlas_python_call"](
            self.application, what, text[0], time.monotonic_ns(), self.ffi.new_handle(sink)
        ), sink

    def get(self, path: str) -> Sink:
        status, sink = self.request("GET", path.encode())
        assert status == self.lib.ATLAS_OK
        return sink

    def post(self, path: str, body: bytes = b"") -> Sink:
        status, sink = self.request("POST", path.encode(), body=body)
        assert status == self.lib.ATLAS_OK
        return sink

    def next(self, stream: int | None) -> tuple[int, bytes]:
        status, sink = self._call("atlas_python_stream_next", self.application, stream, time.monotonic_ns())
        return status, sink.body

    def close(self, stream: int | None) -> None:
        self.functions["atlas_python_stream_close"](self.application, stream)

    def _slice(self, data: bytes) -> Any:
        if not data:
            return (self.ffi.NULL, 0)
        buffer = self.ffi.new("char[]", len(data))
        self.ffi.buffer(buffer)[:] = data
        self._buffers.append(buffer)
        return (buffer, len(data))

    def _call(self, name: str, *arguments: Any) -> tuple[int, Sink]:
        sink = Sink()
        handle = self.ffi.new_handle(sink)
        return self.functions[name](*arguments, handle), sink

    def _text(self, piece: Any) -> str:
        return self._bytes(piece).decode()

    def _bytes(self, piece: Any) -> bytes:
        return bytes(self.ffi.buffer(piece.data, piece.size)) if piece.size else b""

    def _log(self, level: int, text: Any) -> None:
        self.fake.log(LogLevel(level), self._text(text))

    def _query(self, host: Any, what: int, argument: Any, sink: Any) -> int:
        asked: Server = self.ffi.from_handle(host)
        answer = None if asked.broken else asked._answer(what, self._bytes(argument))
        self.ffi.from_handle(sink).body += answer or asked.reason
        return int(self.lib.ATLAS_FAILED if answer is None else self.lib.ATLAS_OK)

    def _answer(self, what: int, argument: bytes) -> bytes | None:
        lib, fake = self.lib, self.fake
        if what == lib.ATLAS_QUERY_STATUS:
            return msgspec.json.encode(fake.status())
        if what == lib.ATLAS_QUERY_SETTINGS:
            return msgspec.json.encode(fake.entries)
        if what == lib.ATLAS_QUERY_MEMORY_EVENTS:
            return self._events(argument == b"saved")
        if what == lib.ATLAS_QUERY_MEMORY_ORDER:
            layer, *priorities = self.ffi.from_buffer("int64_t[]", argument)
            fake.set_priorities(layer, priorities)
            return b""
        if what == lib.ATLAS_QUERY_REQUEST_SCHEMA:
            return msgspec.json.encode(fake.request_schema())
        if what == lib.ATLAS_QUERY_CONVERSATIONS:
            return msgspec.json.encode(fake.conversations())
        if what == lib.ATLAS_QUERY_METRICS:
            return msgspec.json.encode({"families": fake.metrics()})
        if what == lib.ATLAS_QUERY_HOOKS and not argument:
            return msgspec.json.encode(fake.hook_tallies())
        if what == lib.ATLAS_QUERY_RECORDS:
            question, _, value = argument.partition(b"\n")
            answer, values = fake.ask_records(msgspec.json.decode(question), value)
            return msgspec.json.encode(answer) + b"\n" + values
        fields = msgspec.json.decode(argument)
        if what == lib.ATLAS_QUERY_SETTINGS_CHANGE:
            change = fake.change_settings(fields)
            return msgspec.json.encode(
                {"problems": change.problems} if change.problems else {"changed": change.changed}
            )
        if what == lib.ATLAS_QUERY_HOOKS:
            fake.set_request_hooks(fields["number"], fields["hooks"])
            return b""
        if what == lib.ATLAS_QUERY_TIERS:
            is_used = fake.set_tiers(fields["number"], fields["tiers"])
            return msgspec.json.encode({"is_used": is_used})
        if what == lib.ATLAS_QUERY_HOOKS_ENABLE:
            return msgspec.json.encode({"was_off": fake.enable_hooks(fields["plugin"])})
        if what == lib.ATLAS_QUERY_SESSIONS:
            return msgspec.json.encode({"version": 0, "sessions": fake.sessions(**fields)})
        return msgspec.json.encode(fake.edit_session(**fields))

    def _events(self, with_saved: bool) -> bytes:
        touches, evictions, saved = self.fake.memory_events(with_saved=with_saved)
        records: list[dict[str, Any]] = [
            {
                "seconds" if name == "saving" else name: value
                for name, value in (*touch._asdict().items(), ("what", self.lib.ATLAS_EVENT_TOUCHED))
            }
            for touch in touches
        ]
        records += [{**one._asdict(), "what": self.lib.ATLAS_EVENT_SAVED, "layer": 2} for one in saved]
        for layer, gone in evictions.items():
            records += [
                {**one._asdict(), "what": self.lib.ATLAS_EVENT_EVICTED, "layer": layer} for one in gone
            ]
        return bytes(self.ffi.buffer(self.ffi.new("atlas_memory_event[]", records)))

    def _sink_status(self, sink: Any, status: int) -> None:
        self.ffi.from_handle(sink).status = status

    def _sink_header(self, sink: Any, name: Any, value: Any) -> None:
        self.ffi.from_handle(sink).headers[self._text(name)] = self._text(value)

    def _sink_body(self, sink: Any, data: Any) -> None:
        self.ffi.from_handle(sink).body += self._bytes(data)

    def _sink_stream(self, sink: Any, stream: int) -> None:
        self.ffi.from_handle(sink).stream = stream

    def _sink_new(self) -> Any:
        handle = self.ffi.new_handle(Sink())
        self._handles[handle] = None
        return handle

    def _sink_text(self, sink: Any) -> Any:
        body = self.ffi.from_handle(sink).body
        self._handles[sink] = self.ffi.from_buffer("char[]", body)
        return self.ffi.new("atlas_slice *", (self._handles[sink], len(body)))[0]

    def _sink_free(self, sink: Any) -> None:
        del self._handles[sink]

    def _hook_worker_wanted(self, host: Any, queue: int, has_failed: int) -> int:
        asked: Server = self.ffi.from_handle(host)
        wanted, asked._is_wanted = asked._is_wanted, False
        return int(self.lib.ATLAS_OK if wanted else self.lib.ATLAS_STREAM_END)

    def _hook_take(self, host: Any, queue: int, work: Any) -> int:
        asked: Server = self.ffi.from_handle(host)
        call = asked.calls.get()
        if call is None:
            return int(self.lib.ATLAS_STREAM_END)
        work.number, work.table, work.request, work.hook = call.number, call.table, call.request, call.hook
        work.head, work.body = asked._slice(call.head), asked._slice(call.body)
        work.payload = call.payload
        return int(self.lib.ATLAS_OK)

    def _hook_step(self, host: Any, queue: int, number: int, step: int, sink: Any) -> int:
        asked: Server = self.ffi.from_handle(host)
        asked.steps.put((step, None if sink == self.ffi.NULL else copy(self.ffi.from_handle(sink))))
        asked._position = 0 if step == self.lib.ATLAS_STEP_BEGIN else asked._position + 1
        return asked._position if asked._position < asked.n_implementations else -1

    def _hook_read(self, host: Any, queue: int, number: int, to: Any, size: int) -> int:
        asked: Server = self.ffi.from_handle(host)
        if len(asked.payload) != size:
            return int(self.lib.ATLAS_FAILED)
        self.ffi.memmove(to, asked.payload, size)
        return int(self.lib.ATLAS_OK)

    @property
    def sinks_leaked(self) -> int:
        return len(self._handles)
