"""Two hosts in one process: each has an application of its own."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from atlas_plugin.host.host import ServerCall
from atlas_plugin.testing import FakeHost
from tests.unit.embedding.host import Server

PLUGIN = """
import pickle
from dataclasses import dataclass

from atlas_plugin import StreamResponse, hookimpl

state = {"starts": 0, "stops": 0}


@dataclass
class Own:
    number: int = 1


@hookimpl
def startup(host):
    state["starts"] += 1
    state["interval"] = host.settings().integer("metrics_update_interval_ms")


@hookimpl
def shutdown():
    state["stops"] += 1


@hookimpl
def register_routes(routes):
    routes.get("/v1/atlas/x/state")(lambda request: state)
    routes.get("/v1/atlas/x/pickled")(lambda request: str(pickle.loads(pickle.dumps(Own()))))
    routes.get("/v1/atlas/x/NAME")(lambda request: StreamResponse(iter(["NAME", "more"])))
"""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    made: list[Server] = []
    for name, interval in (("a", 1000), ("b", 2000)):
        (tmp_path / name).mkdir()
        # Both plugins have the same name.
        plugin = tmp_path / name / "mine.py"
        plugin.write_text(PLUGIN.replace("NAME", name))
        fake = FakeHost(
            plugins=[str(plugin)],
            memory_save_path=str(tmp_path / name / "memory"),
            metrics_update_interval_ms=interval,
        )
        made.append(Server(fake, made[0] if made else None))
        status, sink = made[-1].start()
        assert (status, sink.body) == (made[-1].lib.ATLAS_OK, b"")
    yield made
    for server in made:
        server.stop()


def answer(server: Server, path: str) -> object:
    return msgspec.json.decode(server.get(path).body)


def test_plugins_settings_and_routes_are_apart(servers: list[Server]) -> None:
    a, b = servers
    assert a.application != b.application
    assert answer(a, "/v1/atlas/x/state") == {"starts": 1, "stops": 0, "interval": 1000}
    assert answer(b, "/v1/atlas/x/state") == {"starts": 1, "stops": 0, "interval": 2000}
    # Pickle looks a class up by the name of its module.
    assert a.get("/v1/atlas/x/pickled").body == b.get("/v1/atlas/x/pickled").body == b"Own(number=1)"
    assert a.get("/v1/atlas/x/b").status == b.get("/v1/atlas/x/a").status == 404


def test_streams_are_apart(servers: list[Server]) -> None:
    a, b = servers
    of_a, of_b = a.get("/v1/atlas/x/a").stream, b.get("/v1/atlas/x/b").stream
    assert b.next(of_b)[1] == b"b"
    assert a.stop() == a.lib.ATLAS_OK
    assert a.next(of_a)[0] == a.lib.ATLAS_STREAM_END
    assert b.next(of_b) == (b.lib.ATLAS_OK, b"more")


def test_calls_and_what_they_store_are_apart(servers: list[Server]) -> None:
    a, b = servers
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    status, _ = a.call(ServerCall.RECORD, session_id="s", messages=messages)
    assert status == a.lib.ATLAS_OK
    for one, recorded in ((a, messages), (b, [])):
        answer = msgspec.json.decode(one.call(ServerCall.HISTORY, session_id="s")[1].body)
        assert answer["messages"] == recorded


def test_one_stops_and_the_other_goes_on(servers: list[Server]) -> None:
    a, b = servers
    assert a.stop() == a.lib.ATLAS_OK
    assert a.get("/v1/atlas/x/state").status == 503
    assert answer(b, "/v1/atlas/x/state") == {"starts": 1, "stops": 0, "interval": 2000}
    assert b.stop() == b.lib.ATLAS_OK
    assert b.get("/v1/atlas/x/state").status == 503


def test_a_number_that_no_application_has_is_a_failure(servers: list[Server]) -> None:
    a, _ = servers
    nobody = Server(a.fake, a)
    nobody.application = 99
    assert nobody.request("GET", b"/v1/atlas/status")[0] == a.lib.ATLAS_FAILED
