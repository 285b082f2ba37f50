"""A request crosses into Python and its answer comes back, whatever a handler does."""

import re
import threading
import time

import msgspec
import pytest

from atlas_plugin.host.host import LogLevel
from tests.unit.embedding.host import Server, Sink


def test_all_of_a_request_arrives(server: Server) -> None:
    status, sink = server.request(
        "POST",
        b"/v1/atlas/x/echo",
        query=b"a=%20b&c",
        body="ü\x00".encode(),
        headers={"x-name": "ü".encode(), "x-bad": b"\xff"},
    )
    assert status == server.lib.ATLAS_OK
    assert sink.headers == {"Content-Type": "application/json; charset=utf-8"}
    assert msgspec.json.decode(sink.body) == {
        "method": "POST",
        "path": "/v1/atlas/x/echo",
        "query": {"a": " b", "c": ""},
        "headers": {"x-name": "ü", "x-bad": "\ufffd"},
        "body": "ü\x00",
    }


def test_all_of_a_response_arrives(server: Server) -> None:
    sink = server.post("/v1/atlas/x/special")
    assert (sink.status, sink.body, sink.stream) == (201, b"\x00\xff", None)
    assert sink.headers == {"Content-Type": "image/x", "X-Name": "ü"}


def test_no_content(server: Server) -> None:
    sink = server.get("/v1/atlas/x/nothing")
    assert (sink.status, sink.body, sink.headers) == (204, b"", {})


def test_live_status_comes_from_the_host(server: Server) -> None:
    data = msgspec.json.decode(server.get("/v1/atlas/status").body)["data"]
    assert data["uptime_seconds"] == 1.5
    assert data["memory_persistence"] is True


def test_paths_that_are_not_utf8(server: Server) -> None:
    status, sink = server.request("GET", b"/v1/atlas/\xff")
    assert status == server.lib.ATLAS_OK
    assert (sink.status, sink.error["type"]) == (404, "not_found")


def test_wrong_method(server: Server) -> None:
    sink = server.get("/v1/atlas/x/echo")
    assert (sink.status, sink.headers["Allow"], sink.error["type"]) == (405, "POST", "validation_error")


@pytest.mark.parametrize(
    ("name", "kind"), [("exit", "SystemExit: not you"), ("division", "ZeroDivisionError")]
)
def test_an_exception_is_a_500_and_its_traceback_is_logged(server: Server, name: str, kind: str) -> None:
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


def test_an_error_that_a_handler_means(server: Server) -> None:
    sink = server.post("/v1/atlas/x/known")
    assert (sink.status, sink.error["message"]) == (500, "the disk is full")


def test_a_broken_host_is_an_answer_too(server: Server) -> None:
    server.broken = True
    sink = server.get("/v1/atlas/status")
    assert (sink.status, sink.error["message"]) == (
        500,
        "The server did not answer a query for its state",
    )


def test_many_threads(server: Server) -> None:
    wrong: list[bytes] = []

    def work(name: str) -> None:
        for _ in range(50):
            sink = Sink()
            handle = server.ffi.new_handle(sink)
            path = server.ffi.new("char[]", f"/v1/atlas/x/{name}".encode())
            request = server.ffi.new("atlas_http_request *")
            request.method = (server.ffi.from_buffer("char[]", b"GET"), 3)
            request.path = (path, len(path) - 1)
            server.functions["atlas_python_request"](server.application, request, time.monotonic_ns(), handle)
            if name.encode() not in sink.body:
                wrong.append(sink.body)

    threads = [threading.Thread(target=work, args=(f"thread{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_is_answered_after_stop(server: Server) -> None:
    assert server.stop() == server.lib.ATLAS_OK
    sink = server.get("/v1/atlas/status")
    assert (sink.status, sink.error["type"]) == (503, "service_unavailable")
    assert server.stop() == server.lib.ATLAS_OK
    assert server.fake.log_text.count("root: shut down") == 1
