"""The ready-made plugin `audit`: what a line has, and lines that the disk does not take."""

import errno
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin import CompletionRequest, StreamChunk
from atlas_plugin.errors import PluginError
from atlas_plugin.host import worker
from atlas_plugin.http import Headers
from atlas_plugin.testing import Application, FakeHost

CHAT = "/v1/chat/completions"
RECORD = {"ended": 1795943123.5, "outcome": "ok", "tokens": {"prompt": 3, "answer": 1}}
BODY = {"model": "demo", "user": "u1", "messages": [{"role": "user", "content": "Hi Ada"}]}
ANSWER = {"choices": [{"message": {"content": "Hello"}}]}

Configure = Callable[..., Application]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def configured(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    applications: list[Application] = []

    def make(**fields: Any) -> Application:
        for name, value in {"path": str(path), **fields}.items():
            text = value if isinstance(value, str) else json.dumps(value)
            monkeypatch.setenv(f"ATLAS_PLUGIN_AUDIT_{name.upper()}", text)
        application = Application(FakeHost(plugins=["audit"]))
        application.__enter__()
        applications.append(application)
        return application

    yield make
    for application in applications:
        application.stop()


def about(name: str, **more: Any) -> CompletionRequest:
    return CompletionRequest(CHAT, name, headers=Headers([("User-Agent", "curl")]), **more)


def answered(application: Application, name: str = "r1", **more: Any) -> None:
    request = about(name, **more)
    application.ask("on_request", request, BODY)
    application.ask("on_response", request, ANSWER)
    application.ask("on_finished", request, RECORD)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def problems(application: Application) -> list[str]:
    reports = application.plugins.reports()
    return [problem for problem in application.plugins.problems(reports) if "audit" in problem]


def test_a_line(path: Path, configured: Configure) -> None:
    application = configured(headers=["User-Agent", "X-None"])
    answered(application, tenant="ab" * 8, is_admin=True, session_id="s1")
    application.stop()
    assert lines(path) == [
        {
            "time": "2026-11-29T09:05:23.500Z",
            "request_id": "r1",
            "route": CHAT,
            "outcome": "ok",
            "who": {
                "tenant": "ab" * 8,
                "is_admin": True,
                "name": None,
                "session": "s1",
                "user": "u1",
                "headers": {"user-agent": "curl", "x-none": None},
            },
            "model": "demo",
            "record": RECORD,
        }
    ]
    assert "Ada" not in path.read_text()


def test_texts(path: Path, configured: Configure) -> None:
    application = configured(prompts="text", answers="text", max_characters=4)
    answered(application)
    application.stop()
    [line] = lines(path)
    assert (line["prompt"], line["answer"]) == (["Hi A"], ["Hell"])


def test_hashes(path: Path, configured: Configure) -> None:
    application = configured(prompts="hash", answers="hash", max_characters=1)
    answered(application)
    application.stop()
    [line] = lines(path)
    assert line["prompt"] == ["sha256:" + hashlib.sha256(b"Hi Ada").hexdigest()]
    assert line["answer"] == ["sha256:" + hashlib.sha256(b"Hello").hexdigest()]


def test_hashes_with_a_key(path: Path, configured: Configure) -> None:
    application = configured(prompts="hash", hash_key="secret")
    answered(application)
    application.stop()
    [line] = lines(path)
    digest = hmac.digest(b"secret", b"Hi Ada", "sha256").hex()
    assert (line["prompt"], "answer" in line) == ([f"hmac-sha256:{digest}"], False)


def test_a_stream(path: Path, configured: Configure) -> None:
    application = configured(answers="text")
    request = about("r1", is_streamed=True)
    for index, piece in ((0, "Hel"), (1, "Go"), (0, "lo")):
        chunk = StreamChunk(({"choices": [{"index": index, "delta": {"content": piece}}]},), False)
        application.ask("on_stream_chunk", request, {"events": chunk.events, "is_last": False})
    application.ask("on_finished", request, RECORD)
    application.stop()
    assert lines(path)[0]["answer"] == ["Hello", "Go"]


def test_what_is_refused_before_any_hook(path: Path, configured: Configure) -> None:
    application = configured(prompts="text", answers="text")
    application.ask("on_failed", about("r1"), {**RECORD, "outcome": "refused"})
    application.stop()
    [line] = lines(path)
    assert (line["outcome"], line["model"], line["answer"], "prompt" in line) == ("refused", None, [], False)


def test_a_full_disk(path: Path, configured: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged once and shown; what waits is written, what did not fit is counted, in the file too."""
    monkeypatch.setattr(worker, "RETRY_S", 0.001)
    is_full, was_tried, write = [True], threading.Semaphore(0), os.write

    def full(descriptor: int, data: bytes) -> int:
        if is_full[0]:
            was_tried.release()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    application = configured(max_waiting_bytes=65_536, prompts="text", max_characters=100_000)
    long = {**BODY, "messages": [{"role": "user", "content": "x" * 30_000}]}
    for name in ("r1", "r2", "r3", "r4"):
        request = about(name)
        application.ask("on_request", request, long)
        application.ask("on_finished", request, RECORD)
    for _ in range(3):
        assert was_tried.acquire(timeout=10)
    assert problems(application) == [
        "the audit log is not written: [Errno 28] No space left on device; 2 lines wait, 2 are lost"
    ]
    is_full[0] = False
    application.stop()
    assert [line.get("request_id", line.get("lost")) for line in lines(path)] == ["r1", "r2", 2]
    host = application.plugins._of_server()
    assert isinstance(host, FakeHost)
    assert sum("is not written" in text for _, text in host.records) == 1


@pytest.mark.parametrize(("fsync", "synced"), [("always", True), ("never", False)])
def test_fsync(
    path: Path, configured: Configure, monkeypatch: pytest.MonkeyPatch, fsync: str, synced: bool
) -> None:
    calls, real = [], os.fsync
    written = threading.Event()

    def sync(descriptor: int) -> None:
        calls.append(descriptor)
        real(descriptor)
        written.set()

    monkeypatch.setattr(os, "fsync", sync)
    application = configured(fsync=fsync)
    answered(application)
    if synced:
        assert written.wait(10)
    application.stop()
    assert bool(calls) == synced
    assert len(lines(path)) == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"fsync": "sometimes"}, "fsync"),
        ({"max_bytes": 1}, "max_bytes"),
        ({"keep": 0}, "keep"),
        ({"prompts": "all"}, "prompts"),
        ({"headers": ["Authorization"]}, "headers: Authorization has secrets"),
        ({"path": "/proc/none/audit.jsonl"}, "path: there is no writing to /proc/none/audit.jsonl"),
    ],
)
def test_wrong_configuration(configured: Configure, fields: dict[str, Any], why: str) -> None:
    with pytest.raises(PluginError, match=why):
        configured(**fields)


def test_no_path() -> None:
    with pytest.raises(PluginError, match="path"), Application(FakeHost(plugins=["audit"])):
        pass
