"""Answers that are read piece after piece."""

import msgspec

from tests.unit.embedding.host import Server


def test_next_and_close(server: Server) -> None:
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


def test_streams_do_not_mix(server: Server) -> None:
    first, second = (server.get("/v1/atlas/x/pieces").stream for _ in range(2))
    assert first != second
    assert server.next(first)[1] == server.next(second)[1] == b"one"


def test_closing_early_runs_the_clean_up(server: Server) -> None:
    stream = server.get("/v1/atlas/x/pieces").stream
    server.next(stream)
    assert msgspec.json.decode(server.get("/v1/atlas/x/closed").body) == []
    server.close(stream)
    assert msgspec.json.decode(server.get("/v1/atlas/x/closed").body) == ["pieces"]


def test_errors_are_logged(server: Server) -> None:
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


def test_stop_ends_them(server: Server) -> None:
    streams = [server.get(f"/v1/atlas/x/{name}").stream for name in ("stuck", "pieces")]
    for stream in streams:
        server.next(stream)
    assert server.stop() == server.lib.ATLAS_OK
    assert [server.next(stream) for stream in streams] == [(server.lib.ATLAS_STREAM_END, b"")] * 2
    assert "ValueError: cannot close" in server.fake.log_text
    server.close(streams[0])
