"""The queue of `webhook`, its secrets, and what it refuses at the start."""

import base64
import sqlite3
from pathlib import Path

import pytest

from atlas_plugin.errors import PluginError
from atlas_plugin.plugins.webhook.delivery import Target, read_secret, signature
from atlas_plugin.plugins.webhook.queue import Queue
from atlas_plugin.testing import Application, FakeHost


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_queue_keeps_the_order_and_survives(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "q", 10)
    for name in ("a", "b"):
        assert queue.put(name, name.encode()) == 0
    queue.close()
    queue = Queue(tmp_path / "q", 10)
    assert queue.length == 2
    first = queue.first()
    assert first is not None and (first.id, first.body, first.refusals) == ("a", b"a", 0)
    queue.remove(first)
    # Removed already, as one that had to make room.
    queue.remove(first)
    second = queue.first()
    assert second is not None and second.id == "b"
    assert queue.length == 1
    queue.close()


def test_what_is_postponed_lets_others_go_first(tmp_path: Path) -> None:
    clock = Clock()
    queue = Queue(tmp_path / "q", 10, clock)
    queue.put("a", b"")
    queue.put("b", b"")
    first = queue.first()
    assert first is not None
    queue.postpone(first, 5)
    second = queue.first()
    assert second is not None and second.id == "b"
    queue.remove(second)
    assert queue.first() is None
    assert queue.next_due_s() == 5
    clock.now += 5
    again = queue.first()
    assert again is not None and (again.id, again.refusals) == ("a", 1)
    queue.close()


def test_old_events_are_given_up(tmp_path: Path) -> None:
    clock = Clock()
    queue = Queue(tmp_path / "q", 10, clock)
    queue.put("a", b"")
    clock.now += 60
    queue.put("b", b"")
    assert queue.expire(59) == 1
    left = queue.first()
    assert left is not None and left.id == "b"
    assert queue.length == 1
    queue.remove(left)
    assert queue.next_due_s() is None
    queue.close()


def test_a_smaller_queue_makes_room(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "q", 10)
    for number in range(5):
        queue.put(str(number), b"")
    queue.close()
    queue = Queue(tmp_path / "q", 2)
    assert queue.put("5", b"") == 4
    first = queue.first()
    assert first is not None and first.id == "4"
    queue.close()


def test_what_cannot_be_written_is_not_counted(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "q", 10)
    other = sqlite3.connect(tmp_path / "q")
    other.execute("DROP TABLE events")
    with pytest.raises(sqlite3.Error):
        queue.put("a", b"")
    assert queue.length == 0
    other.close()
    queue.close()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("sixteen bytes, or more\n", b"sixteen bytes, or more"),
        ("whsec_c2l4dGVlbiBieXRlcywgb3IgbW9yZQ==", b"sixteen bytes, or more"),
        ("whsec_no base64", None),
        ("whsec_YWJj", None),
        ("short", None),
    ],
)
def test_secrets(tmp_path: Path, text: str, secret: bytes | None) -> None:
    (tmp_path / "secret").write_text(text)
    if secret is not None:
        assert read_secret(tmp_path / "secret") == secret
    else:
        with pytest.raises(ValueError):
            read_secret(tmp_path / "secret")


def test_the_signature_of_the_specification() -> None:
    # The example of https://github.com/standard-webhooks/standard-webhooks
    secret = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    made = signature(base64.b64decode(secret), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_target_shows_no_secrets() -> None:
    target = Target("https://a.example:8443/secret-path?secret=1", b"secret", 1, 1, 1, False)
    assert target.name == "a.example:8443"
    assert "secret" not in repr(target)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "url"),
        ({"url": "https://a", "url_file": "x"}, "url or url_file"),
        ({"url": "http://a.example/"}, "url: it must be https://"),
        ({"url_file": "/nowhere"}, "url_file"),
        ({"url": "https://a", "secret_file": ""}, "secret_file"),
        ({"url": "https://a", "secret_file": "/nowhere"}, "secret_file"),
        ({"url": "https://a", "events": '["ended"]'}, "events"),
        ({"url": "https://a", "max_queued": "0"}, "max_queued"),
        ({"url": "https://a", "timeout_s": "61"}, "timeout_s"),
        ({"url": "https://a"}, "queue_file"),
        ({"url": "https://a", "queue_file": "/dev/null/x"}, "queue_file"),
    ],
)
def test_what_is_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fields: dict[str, str], named: str
) -> None:
    (tmp_path / "secret").write_text("a secret that is long enough")
    for name, value in {"secret_file": str(tmp_path / "secret"), **fields}.items():
        monkeypatch.setenv(f"ATLAS_PLUGIN_WEBHOOK_{name.upper()}", value)
    with pytest.raises(PluginError, match=named), Application(FakeHost(plugins=["webhook"])):
        pass
