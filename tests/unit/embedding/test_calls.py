"""The server's own questions, and whose key a request came with."""

import msgspec

from atlas_plugin.host.host import ServerCall
from atlas_plugin.testing import FakeHost
from tests.unit.embedding.host import Server

MESSAGES = [{"role": "user", "content": "ü"}, {"role": "assistant", "content": "hello"}]


def test_what_is_recorded_is_the_history(server: Server) -> None:
    status, sink = server.call(ServerCall.HISTORY, session_id="a")
    assert (status, sink.body) == (server.lib.ATLAS_OK, b'{"messages":[],"degraded":null,"answers":[]}')
    status, sink = server.call(ServerCall.RECORD, session_id="a", messages=MESSAGES)
    assert (status, sink.body) == (server.lib.ATLAS_OK, b'{"degraded":null}')
    _, sink = server.call(ServerCall.HISTORY, session_id="a")
    assert msgspec.json.decode(sink.body) == {"messages": MESSAGES, "degraded": None, "answers": []}
    listed = msgspec.json.decode(server.post("/v1/atlas/memory/list").body)["data"]["contexts"]
    assert [entry["context_id"] for entry in listed] == ["a"]


def test_tenants_arrive(server: Server) -> None:
    tenant = b"0123456789abcdef"
    server.call(ServerCall.RECORD, session_id=f"{tenant.decode()}/a", messages=MESSAGES)
    for key, found in ((tenant, 200), (b"f" * 16, 404)):
        _, sink = server.request(
            "POST", b"/v1/atlas/memory/load", body=b'{"context_id": "a"}', tenant=key, is_admin=False
        )
        assert sink.status == found


def test_a_call_that_cannot_be_answered(server: Server) -> None:
    status, sink = server.call(
        ServerCall.RECORD, session_id="a", messages=[{"role": "user", "c": "a" * 9_000_000}]
    )
    assert (status, sink.status) == (server.lib.ATLAS_FAILED, 413)
    assert b"does not fit into a session's record of 8388608 bytes" in sink.body
    status, sink = server.call(99)
    assert (status, sink.status) == (server.lib.ATLAS_FAILED, 503)
    status, sink = server.call(ServerCall.HISTORY)
    assert (status, sink.status) == (server.lib.ATLAS_FAILED, 500)
    assert b"Internal server error (reference " in sink.body
    assert "KeyError: 'session_id'" in server.fake.log_text
    server.stop()
    status, sink = server.call(ServerCall.HISTORY, session_id="a")
    assert (status, sink.status, sink.body) == (server.lib.ATLAS_FAILED, 503, b"the server is shutting down")


def test_without_a_memory_path() -> None:
    server = Server(FakeHost())
    server.start()
    status, sink = server.call(ServerCall.RECORD, session_id="a", messages=MESSAGES)
    assert (status, sink.status) == (server.lib.ATLAS_FAILED, 503)
    assert sink.body == b"nothing is saved"
    server.stop()
