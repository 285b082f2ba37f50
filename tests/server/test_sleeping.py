"""A server that sleeps for want of requests: who only looks at it neither wakes it nor keeps it awake."""

import httpx

from tests.server.conftest import StartServer
from tests.server.harness import Server

SLEEPY = ["--sleep-idle-seconds", "1"]


def is_asleep(server: Server) -> bool:
    """As /props says, which never wakes it."""
    asleep: bool = server.get("/props").json()["is_sleeping"]
    return asleep


def slots(server: Server, query: str = "") -> httpx.Response:
    return server.get(f"/slots{query}")


def test_who_polls_the_slots_lets_it_sleep(start_server: StartServer) -> None:
    server = start_server(SLEEPY)
    assert server.post("/completion", {"prompt": "Once", "n_predict": 1}).status_code == 200
    awake = slots(server).json()
    server.wait_until(lambda: slots(server).status_code == 200 and is_asleep(server), timeout=30)
    for query in ("", "?fail_on_no_slot=1"):
        assert slots(server, query).json() == awake
    assert is_asleep(server)
    assert server.post("/completion", {"prompt": "Once", "n_predict": 1}).status_code == 200
    assert not is_asleep(server)


def test_slots_that_are_not_shown(start_server: StartServer) -> None:
    """As stock: whether it sleeps or not."""
    server = start_server([*SLEEPY, "--no-slots"])
    assert slots(server).status_code == 501
    server.wait_until(lambda: is_asleep(server))
    assert slots(server).status_code == 501


def test_sigterm_while_it_sleeps(start_server: StartServer) -> None:
    server = start_server(SLEEPY)
    server.wait_until(lambda: is_asleep(server))
    assert server.stop() == 0
