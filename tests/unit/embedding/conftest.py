from collections.abc import Iterator
from pathlib import Path

import pytest

from atlas_plugin.testing import FakeHost
from tests.unit.embedding.host import Server

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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "mine.py").write_text(PLUGIN)
    server = Server(FakeHost(plugins=[str(tmp_path / "mine.py")], memory_save_path=str(tmp_path / "memory")))
    status, sink = server.start()
    assert (status, sink.body) == (server.lib.ATLAS_OK, b"")
    yield server
    assert server.stop() == server.lib.ATLAS_OK
    assert server.sinks_leaked == 0
