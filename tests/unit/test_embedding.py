"""The functions of atlas-abi.h as the server sees them: real cffi types, a host made of callbacks."""

import logging
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cffi  # type: ignore[import-untyped]
import orjson
import pytest

from atlas_plugin import ABI_VERSION, embedding
from atlas_plugin.host import LogLevel
from atlas_plugin.host_logging import HostHandler
from atlas_plugin.testing import FakeHost

HEADER = Path(__file__).parents[2] / "native/include/atlas-abi.h"

PLUGIN = """
import logging
import threading
import warnings

from atlas_plugin import Response, ServerError, StreamResponse, hookimpl

closed = []


def pieces():
    try:
        yield "one"
        yield b""
        yield "tw\\u00f6"
    finally:
        closed.append("pieces")


def broken():
    yield b"one"
    raise SystemExit("no more")


def stuck():
    try:
        yield b"one"
    finally:
        raise ValueError("cannot close")


def echo(request):
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
        "body": request.body.decode(),
    }


def exit(request):
    raise SystemExit("not you")


def division(request):
    return 1 / 0


def known(request):
    raise ServerError("the disk is full")


def special(request):
    return Response(201, b"\\x00\\xff", "image/x", {"X-Name": "\\u00fc"})


@hookimpl
def register_routes(routes):
    for handler in (echo, exit, division, known, special):
        routes.post(f"/v1/atlas/x/{handler.__name__}")(handler)
    routes.get("/v1/atlas/x/nothing")(lambda request: None)
    for stream in (pieces, broken, stuck):
        routes.get(f"/v1/atlas/x/{stream.__name__}")(lambda request, s=stream: StreamResponse(s()))
    routes.get("/v1/atlas/x/numbers")(lambda request: StreamResponse([1]))
    routes.get("/v1/atlas/x/closed")(lambda request: closed)


@hookimpl
def shutdown():
    logging.info("shut down")
"""


def declarations(part: str) -> str:
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
        error: dict[str, Any] = orjson.loads(self.body)["error"]
        assert error["code"] == self.status
        return error


class Server:
    """Stands in for the C++ side: keeps the functions that `bind` installs, and calls them."""

    def __init__(self, fake: FakeHost) -> None:
        self.fake = fake
        self.broken = False
        self.ffi = cffi.FFI()
        self.ffi.cdef(declarations("types"))
        self.lib = self.ffi.dlopen(None)
        self.functions: dict[str, Callable[..., Any]] = {}
        self.externs: dict[str, dict[str, Any]] = {}
        self._handles: dict[Any, Any] = {}
        embedding.bind(self, self.lib)
        self.api = self.ffi.new("atlas_host_api *")
        self.api.abi_version = ABI_VERSION
        self._callbacks = {
            name: self.ffi.callback(member.type, getattr(self, f"_{name}"))
            for name, member in self.ffi.typeof("atlas_host_api").fields
            if member.type.kind == "function"
        }
        for name, callback in self._callbacks.items():
            setattr(self.api, name, callback)
        self._buffers: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ffi, name)

    def def_extern(self, name: str, **options: Any) -> Callable[[Callable[..., Any]], None]:
        self.externs[name] = options
        return lambda function: self.functions.__setitem__(name, function)

    def start(self) -> tuple[int, Sink]:
        return self._call("atlas_python_start", self.api)

    def stop(self) -> int:
        status: int = self.functions["atlas_python_stop"]()
        return status

    def request(
        self,
        method: str,
        path: bytes,
        query: bytes = b"",
        body: bytes = b"",
        headers: dict[str, bytes] | None = None,
    ) -> tuple[int, Sink]:
        pairs = [(self._slice(name.encode()), self._slice(value)) for name, value in (headers or {}).items()]
        array = self.ffi.new("atlas_header[]", pairs) if pairs else self.ffi.NULL
        fields = [self._slice(part) for part in (method.encode(), path, query, body)]
        request = self.ffi.new("atlas_http_request *", [*fields, array, len(pairs)])
        result = self._call("atlas_python_request", request)
        # Borrowed memory is gone once the call returns; what Python kept of it would show.
        for buffer in self._buffers:
            self.ffi.buffer(buffer)[:] = b"\xee" * len(buffer)
        self._buffers.clear()
        return result

    def get(self, path: str) -> Sink:
        status, sink = self.request("GET", path.encode())
        assert status == self.lib.ATLAS_OK
        return sink

    def post(self, path: str, body: bytes = b"") -> Sink:
        status, sink = self.request("POST", path.encode(), body=body)
        assert status == self.lib.ATLAS_OK
        return sink

    def next(self, stream: int | None) -> tuple[int, bytes]:
        status, sink = self._call("atlas_python_stream_next", stream)
        return status, sink.body

    def close(self, stream: int | None) -> None:
        self.functions["atlas_python_stream_close"](stream)

    def _slice(self, data: bytes) -> Any:
        if not data:
            return (self.ffi.NULL, 0)
        buffer = self.ffi.new("char[]", len(data))
        self.ffi.buffer(buffer)[:] = data
        self._buffers.append(buffer)
        return (buffer, len(data))

    def _call(self, name: str, argument: Any) -> tuple[int, Sink]:
        sink = Sink()
        handle = self.ffi.new_handle(sink)
        return self.functions[name](argument, handle), sink

    def _text(self, piece: Any) -> str:
        return self._bytes(piece).decode()

    def _bytes(self, piece: Any) -> bytes:
        return bytes(self.ffi.buffer(piece.data, piece.size))

    def _log(self, level: int, text: Any) -> None:
        self.fake.log(LogLevel(level), self._text(text))

    def _query(self, what: int, sink: Any) -> int:
        if self.broken:
            return int(self.lib.ATLAS_FAILED)
        if what == self.lib.ATLAS_QUERY_STATUS:
            self.ffi.from_handle(sink).body += orjson.dumps(self.fake.status())
        elif what == self.lib.ATLAS_QUERY_SETTINGS:
            self.ffi.from_handle(sink).body += orjson.dumps(self.fake.entries)
        return int(self.lib.ATLAS_OK)

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

    @property
    def sinks_leaked(self) -> int:
        return len(self._handles)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "mine.py").write_text(PLUGIN)
    server = Server(FakeHost(plugins=[str(tmp_path / "mine.py")], memory_save_path=str(tmp_path / "memory")))
    status, sink = server.start()
    assert (status, sink.body) == (server.lib.ATLAS_OK, b"")
    yield server
    assert server.stop() == server.lib.ATLAS_OK
    assert server.sinks_leaked == 0


class TestContract:
    def test_every_function_of_the_header_is_bound(self, server: Server) -> None:
        declared = re.findall(
            r"\b(atlas_python_\w+)\(", re.sub(r"/\*.*?\*/", "", declarations("functions"), flags=re.S)
        )
        assert sorted(server.functions) == sorted(declared)
        for name, options in server.externs.items():
            assert options["onerror"]
            assert options.get("error") == (None if name.endswith("_close") else server.lib.ATLAS_FAILED)

    def test_the_numbers_agree(self, server: Server) -> None:
        assert server.lib.ATLAS_ABI_VERSION == ABI_VERSION
        assert {level.name: level.value for level in LogLevel} == {
            level: getattr(server.lib, f"ATLAS_LOG_{level}") for level in ("DEBUG", "INFO", "WARN", "ERROR")
        }

    def test_another_version_is_refused(self, capfd: pytest.CaptureFixture[str]) -> None:
        class OtherLib:
            ATLAS_ABI_VERSION = ABI_VERSION + 1

        with pytest.raises(
            ImportError, match=f"has ABI version {ABI_VERSION}, this server {ABI_VERSION + 1}"
        ):
            embedding.bind(None, OtherLib())
        server = Server(FakeHost())
        server.api.abi_version = ABI_VERSION + 1
        assert server.start()[0] == server.lib.ATLAS_FAILED
        assert f"ABI version {ABI_VERSION + 1}" in capfd.readouterr().err

    def test_a_start_that_fails_says_why_in_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "bad.py").write_text("1 / 0")
        server = Server(FakeHost(plugins=[str(tmp_path / "bad.py")], require_python=True))
        status, sink = server.start()
        assert status == server.lib.ATLAS_FAILED
        assert sink.body.startswith(
            b"plugin 'bad' failed: ZeroDivisionError: division by zero. Repair or remove"
        )
        assert b"\n" not in sink.body
        server = Server(FakeHost(log_level="loud"))
        status, sink = server.start()
        assert (status, sink.body[:16]) == (server.lib.ATLAS_FAILED, b"log level 'loud'")

    def test_what_def_extern_reports_is_logged(self, server: Server) -> None:
        error = OverflowError("result")
        server.externs["atlas_python_stop"]["onerror"](OverflowError, error, None)
        assert "OverflowError: result" in server.fake.log_text


class TestRequests:
    def test_all_of_a_request_arrives(self, server: Server) -> None:
        status, sink = server.request(
            "POST",
            b"/v1/atlas/x/echo",
            query=b"a=%20b&c",
            body="ü\x00".encode(),
            headers={"x-name": "ü".encode(), "x-bad": b"\xff"},
        )
        assert status == server.lib.ATLAS_OK
        assert sink.headers == {"Content-Type": "application/json; charset=utf-8"}
        assert orjson.loads(sink.body) == {
            "method": "POST",
            "path": "/v1/atlas/x/echo",
            "query": {"a": " b", "c": ""},
            "headers": {"x-name": "ü", "x-bad": "\ufffd"},
            "body": "ü\x00",
        }

    def test_all_of_a_response_arrives(self, server: Server) -> None:
        sink = server.post("/v1/atlas/x/special")
        assert (sink.status, sink.body, sink.stream) == (201, b"\x00\xff", None)
        assert sink.headers == {"Content-Type": "image/x", "X-Name": "ü"}

    def test_no_content(self, server: Server) -> None:
        sink = server.get("/v1/atlas/x/nothing")
        assert (sink.status, sink.body, sink.headers) == (204, b"", {})

    def test_live_status_comes_from_the_host(self, server: Server) -> None:
        data = orjson.loads(server.get("/v1/atlas/status").body)["data"]
        assert data["uptime_seconds"] == 1.5
        assert data["memory_persistence"] is True

    def test_paths_that_are_not_utf8(self, server: Server) -> None:
        status, sink = server.request("GET", b"/v1/atlas/\xff")
        assert status == server.lib.ATLAS_OK
        assert (sink.status, sink.error["type"]) == (404, "not_found")

    def test_wrong_method(self, server: Server) -> None:
        sink = server.get("/v1/atlas/x/echo")
        assert (sink.status, sink.headers["Allow"], sink.error["type"]) == (405, "POST", "validation_error")

    @pytest.mark.parametrize(
        ("name", "kind"), [("exit", "SystemExit: not you"), ("division", "ZeroDivisionError")]
    )
    def test_an_exception_is_a_500_and_its_traceback_is_logged(
        self, server: Server, name: str, kind: str
    ) -> None:
        sink = server.post(f"/v1/atlas/x/{name}")
        assert (sink.status, sink.error["type"]) == (500, "server_error")
        match = re.fullmatch(r"Internal server error \(reference ([0-9a-f]{8})\)", sink.error["message"])
        assert match
        assert kind.encode() not in sink.body
        [(level, text)] = [record for record in server.fake.records if match[1] in record[1]]
        assert level is LogLevel.ERROR
        assert "Traceback (most recent call last)" in text
        assert kind in text
        assert abs(sink.error["timestamp"] - time.time()) < 3600

    def test_an_error_that_a_handler_means(self, server: Server) -> None:
        sink = server.post("/v1/atlas/x/known")
        assert (sink.status, sink.error["message"]) == (500, "the disk is full")

    def test_a_broken_host_is_an_answer_too(self, server: Server) -> None:
        server.broken = True
        sink = server.get("/v1/atlas/status")
        assert (sink.status, sink.error["message"]) == (
            500,
            "The server did not answer a query for its state",
        )

    def test_many_threads(self, server: Server) -> None:
        wrong: list[bytes] = []

        def work(name: str) -> None:
            for _ in range(50):
                sink = Sink()
                handle = server.ffi.new_handle(sink)
                path = server.ffi.new("char[]", f"/v1/atlas/x/{name}".encode())
                request = server.ffi.new("atlas_http_request *")
                request.method = (server.ffi.from_buffer("char[]", b"GET"), 3)
                request.path = (path, len(path) - 1)
                server.functions["atlas_python_request"](request, handle)
                if name not in sink.error["message"]:
                    wrong.append(sink.body)

        threads = [threading.Thread(target=work, args=(f"thread{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_nothing_is_answered_after_stop(self, server: Server) -> None:
        assert server.stop() == server.lib.ATLAS_OK
        sink = server.get("/v1/atlas/status")
        assert (sink.status, sink.error["type"]) == (503, "service_unavailable")
        assert server.stop() == server.lib.ATLAS_OK
        assert server.fake.log_text.count("root: shut down") == 1


class TestStreams:
    def test_next_and_close(self, server: Server) -> None:
        ok, end = server.lib.ATLAS_OK, server.lib.ATLAS_STREAM_END
        sink = server.get("/v1/atlas/x/pieces")
        assert (sink.status, sink.body, sink.headers) == (200, b"", {"Content-Type": "text/event-stream"})
        assert sink.stream
        assert [server.next(sink.stream) for _ in range(5)] == [
            (ok, b"one"),
            (ok, b""),
            (ok, "twö".encode()),
            (end, b""),
            (end, b""),
        ]
        server.close(sink.stream)
        server.close(sink.stream)
        server.close(12345)
        assert server.next(sink.stream)[0] == server.lib.ATLAS_FAILED

    def test_streams_do_not_mix(self, server: Server) -> None:
        first, second = (server.get("/v1/atlas/x/pieces").stream for _ in range(2))
        assert first != second
        assert server.next(first)[1] == server.next(second)[1] == b"one"

    def test_closing_early_runs_the_clean_up(self, server: Server) -> None:
        stream = server.get("/v1/atlas/x/pieces").stream
        server.next(stream)
        assert orjson.loads(server.get("/v1/atlas/x/closed").body) == []
        server.close(stream)
        assert orjson.loads(server.get("/v1/atlas/x/closed").body) == ["pieces"]

    def test_errors_are_logged(self, server: Server) -> None:
        stream = server.get("/v1/atlas/x/broken").stream
        assert server.next(stream) == (server.lib.ATLAS_OK, b"one")
        assert server.next(stream) == (server.lib.ATLAS_FAILED, b"")
        assert "SystemExit: no more" in server.fake.log_text
        assert server.next(server.get("/v1/atlas/x/numbers").stream)[0] == server.lib.ATLAS_FAILED
        assert "a stream yielded int: yield bytes or str" in server.fake.log_text
        stream = server.get("/v1/atlas/x/stuck").stream
        server.next(stream)
        server.close(stream)
        assert "ValueError: cannot close" in server.fake.log_text

    def test_stop_ends_them(self, server: Server) -> None:
        streams = [server.get(f"/v1/atlas/x/{name}").stream for name in ("stuck", "pieces")]
        for stream in streams:
            server.next(stream)
        closed = server.functions["atlas_python_stop"]
        assert closed() == server.lib.ATLAS_OK
        assert [server.next(stream) for stream in streams] == [(server.lib.ATLAS_STREAM_END, b"")] * 2
        assert "ValueError: cannot close" in server.fake.log_text
        server.close(streams[0])


class TestLogging:
    def test_names_and_levels(self, server: Server) -> None:
        server.fake.records.clear()
        logging.getLogger("atlas").warning("from %s", "us")
        logging.getLogger("mine.part").error("from a plugin")
        logging.getLogger("mine").log(25, "between")
        logging.getLogger("mine").critical("worst")
        logging.getLogger("mine").debug("too much")
        assert server.fake.records == [
            (LogLevel.WARN, "from us"),
            (LogLevel.ERROR, "mine.part: from a plugin"),
            (LogLevel.INFO, "mine: between"),
            (LogLevel.ERROR, "mine: worst"),
        ]

    def test_a_message_that_cannot_be_formatted(self, server: Server) -> None:
        # Not through a logger: the test runner's own handler would raise.
        record = logging.LogRecord("mine", logging.INFO, __file__, 1, "%d", ("text",), None)
        HostHandler(server.fake).handle(record)
        assert "mine: cannot format the message '%d' of " in server.fake.log_text

    def test_text_that_is_not_unicode(self, server: Server) -> None:
        logging.getLogger("mine").info("a \ud800 b")
        assert "mine: a ? b" in server.fake.log_text

    def test_warnings_and_stray_exceptions(self, server: Server) -> None:
        class Stray:
            def __del__(self) -> None:
                raise ValueError("in __del__")

        def fail() -> None:
            raise ValueError("in a thread")

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # The test runner records warnings by replacing this function; a server has the real one.
            logging.captureWarnings(False)
            logging.captureWarnings(True)
            warnings.warn("careful", stacklevel=1)
        Stray()
        thread = threading.Thread(target=fail, name="worker")
        thread.start()
        thread.join()
        text = server.fake.log_text
        assert "py.warnings: " in text
        assert "careful" in text
        assert "ValueError: in __del__" in text
        assert "thread worker ended by an exception" in text
        assert "ValueError: in a thread" in text
