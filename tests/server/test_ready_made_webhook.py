"""The ready-made plugin `webhook` in the real server, with a receiver that fails, hangs and comes back."""

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin.testing import LiveServer, StartServer
from tests.receiver import Delivery, Receiver

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "A word that nobody is told"}], "max_tokens": 2}
SECRET = "a secret that signs events"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def options(directory: Path, url: str, **fields: Any) -> dict[str, Any]:
    """What starts a server with the plugin."""
    (directory / "secret").write_text(f"{SECRET}\n")
    given = {
        "url": url,
        "secret_file": str(directory / "secret"),
        "queue_file": str(directory / "queue.sqlite3"),
        "retry_max_s": 1,
        **fields,
    }
    path = directory / "atlas.toml"
    rows = [f"{name} = {value!r}" for name, value in given.items()]
    path.write_text("\n".join(["[plugins.webhook]", *rows]), encoding="utf-8")
    return {"plugins": ["webhook"], "arguments": ["--atlas-config", path]}


def chat(server: LiveServer, request_id: str, **fields: Any) -> int:
    return server.post(CHAT, {**BODY, **fields}, {"X-Request-Id": request_id}).status


def report(server: LiveServer) -> dict[str, Any]:
    """The status: of the plugin, with all that is wrong."""
    status = server.get("/v1/atlas/status").json()
    return {**status["data"]["webhook"], "problems": " ".join(status["problems"])}


def request_ids(attempts: list[Delivery]) -> list[str]:
    return [one.document["data"]["request_id"] for one in attempts]


def is_signed(delivery: Delivery) -> bool:
    """As a receiver checks it, by https://www.standardwebhooks.com."""
    head = f"{delivery.headers['webhook-id']}.{delivery.headers['webhook-timestamp']}.".encode()
    digest = hmac.new(SECRET.encode(), head + delivery.body, hashlib.sha256).digest()
    return delivery.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_a_completion_is_told(atlas_server: StartServer, receiver: Receiver, tmp_path: Path) -> None:
    server = atlas_server(**options(tmp_path, receiver.url))
    assert chat(server, "one") == 200
    assert chat(server, "two", stream=True) == 200
    server.wait_until(lambda: report(server)["delivered"] == 2)
    first, second = receiver.attempts
    assert is_signed(first) and is_signed(second)
    assert abs(int(first.headers["webhook-timestamp"]) - time.time()) < 60
    assert first.path == "/hook?token=part-of-the-url"
    assert first.headers["webhook-id"] == first.document["id"] != second.document["id"]
    assert (first.document["type"], first.document["name"]) == ("completion.finished", None)
    assert first.document["path"] == CHAT
    data = first.document["data"]
    assert (data["request_id"], data["route"], data["outcome"]) == ("one", "chat", "ok")
    assert data["tokens"]["answer"] == 2
    assert second.document["data"]["streamed"]
    assert b"nobody is told" not in first.body
    metrics = server.get("/v1/atlas/metrics/prometheus").text
    assert 'atlas_webhook_attempts_total{result="delivered"} 2' in metrics
    assert "atlas_webhook_queued 0" in metrics
    assert (tmp_path / "queue.sqlite3").stat().st_mode & 0o777 == 0o600
    for shown in (
        server.log,
        metrics,
        server.get("/v1/atlas/status").text,
        server.get("/v1/atlas/config").text,
    ):
        assert SECRET not in shown
        assert "part-of-the-url" not in shown


@pytest.mark.parametrize("events", [["failed"], ["finished"], ["finished", "failed"]])
def test_failures_are_told_where_asked_for(
    atlas_server: StartServer, receiver: Receiver, tmp_path: Path, events: list[str]
) -> None:
    server = atlas_server(**options(tmp_path, receiver.url, events=events))
    assert chat(server, "bad", messages=1) == 400
    assert chat(server, "good") == 200
    server.wait_until(lambda: report(server)["delivered"] == len(events))
    told = {one.document["type"]: one.document["data"]["request_id"] for one in receiver.attempts}
    expected = {"finished": ("completion.finished", "good"), "failed": ("completion.failed", "bad")}
    assert told == dict(expected[event] for event in events)


def test_a_receiver_that_fails_is_tried_again(
    atlas_server: StartServer, receiver: Receiver, tmp_path: Path
) -> None:
    server = atlas_server(**options(tmp_path, receiver.url))
    receiver.status = 503
    assert chat(server, "one") == 200
    server.wait_until(lambda: len(receiver.attempts) >= 2)
    host = f"the webhook's receiver 127.0.0.1:{receiver.port} fails: it answered 503"
    assert host in report(server)["problems"]
    assert chat(server, "two") == 200
    receiver.status = 200
    server.wait_until(lambda: report(server)["delivered"] == 2)
    *before, second = receiver.attempts
    assert {one.headers["webhook-id"] for one in before} == {before[0].document["id"]}
    assert second.document["data"]["request_id"] == "two"
    assert all(is_signed(one) for one in receiver.attempts)
    assert "webhook" not in report(server)["problems"]
    assert server.logged("takes events again")


def test_nobody_waits_for_a_receiver_that_hangs(
    atlas_server: StartServer, receiver: Receiver, tmp_path: Path
) -> None:
    server = atlas_server(**options(tmp_path, receiver.url, timeout_s=1.0))
    receiver.released.clear()
    assert chat(server, "one") == 200
    server.wait_until(lambda: len(receiver.attempts) == 1)
    for number in range(5):
        assert chat(server, f"more-{number}") == 200
    server.wait_until(lambda: report(server)["queued"] == 6)
    server.wait_until(lambda: "no answer within 1 s" in report(server)["problems"])
    receiver.released.set()
    server.wait_until(lambda: report(server)["queued"] == 0)
    assert set(request_ids(receiver.attempts)) == {"one", *(f"more-{number}" for number in range(5))}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_nothing_is_lost_by_a_restart(atlas_server: StartServer, tmp_path: Path, end: str) -> None:
    with Receiver() as receiver:
        url, port = receiver.url, receiver.port
    # Nobody listens there now.
    server = atlas_server(**options(tmp_path, url))
    assert chat(server, "one") == 200
    assert chat(server, "two") == 200
    server.wait_until(lambda: report(server)["queued"] == 2)
    if end == "stop":
        assert server.stop() == 0
    else:
        server.kill()
    with Receiver(port) as receiver:
        server.start()
        server.wait_until(lambda: report(server)["queued"] == 0)
        assert request_ids(receiver.attempts) == ["one", "two"]
        assert server.stop() == 0


def test_sigterm_while_the_receiver_hangs(
    atlas_server: StartServer, receiver: Receiver, tmp_path: Path
) -> None:
    server = atlas_server(**options(tmp_path, receiver.url, timeout_s=60.0))
    receiver.released.clear()
    assert chat(server, "one") == 200
    server.wait_until(lambda: len(receiver.attempts) == 1)
    began = time.monotonic()
    assert server.stop() == 0
    # Far less than it would wait for the receiver.
    assert time.monotonic() - began < 30
    receiver.released.set()
    server.start()
    server.wait_until(lambda: report(server)["delivered"] == 1)
    first, second = receiver.attempts
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_redirects_are_not_followed(atlas_server: StartServer, receiver: Receiver, tmp_path: Path) -> None:
    server = atlas_server(**options(tmp_path, receiver.url))
    receiver.status, receiver.location = 307, "/elsewhere"
    assert chat(server, "one") == 200
    server.wait_until(lambda: "redirects are not followed" in report(server)["problems"])
    receiver.status = 200
    server.wait_until(lambda: report(server)["delivered"] == 1)
    assert {one.path.partition("?")[0] for one in receiver.attempts} == {"/hook"}


def test_an_event_that_is_refused_holds_up_no_other(
    atlas_server: StartServer, receiver: Receiver, tmp_path: Path
) -> None:
    server = atlas_server(**options(tmp_path, receiver.url))
    receiver.refuses = lambda document: document["data"]["request_id"] == "bad"
    assert chat(server, "bad") == 200
    assert chat(server, "good") == 200
    server.wait_until(lambda: report(server)["delivered"] == 1)
    assert report(server)["queued"] == 1
    server.wait_until(lambda: request_ids(receiver.attempts).count("bad") >= 2)
    receiver.refuses = lambda document: False
    server.wait_until(lambda: report(server)["queued"] == 0)


def test_a_full_queue_drops_the_oldest_and_says_so(
    atlas_server: StartServer, receiver: Receiver, tmp_path: Path
) -> None:
    server = atlas_server(**options(tmp_path, receiver.url, max_queued=2))
    receiver.status = 500
    for number in range(5):
        assert chat(server, f"{number}") == 200
        server.wait_until(lambda number=number: report(server)["dropped"]["full"] == max(0, number - 1))
    assert "the webhook's queue is full" in report(server)["problems"]
    assert 'atlas_webhook_dropped_total{reason="full"} 3' in server.get("/v1/atlas/metrics/prometheus").text
    server.wait_until(lambda: request_ids(receiver.attempts)[-1] == "3")
    receiver.status = 200
    server.wait_until(lambda: report(server)["queued"] == 0)
    assert request_ids(receiver.attempts)[-2:] == ["3", "4"]
    assert report(server)["delivered"] == 2
