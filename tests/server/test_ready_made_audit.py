"""The ready-made plugin `audit` in a real server: every route, kill -9, and a full disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.small_disk import SmallDisk
from tests.server.completions import BODIES, ROUTES
from tests.server.conftest import StartServer
from tests.server.harness import Server
from tests.server.keys import ADA, ADMIN, key_options, with_key

CHAT = "/v1/chat/completions"


def options(directory: Path, **fields: Any) -> list[str]:
    """Options of a server with the plugin, and a file of configuration."""
    file = directory / "atlas.toml"
    values = {"path": str(directory / "audit.jsonl"), **fields}
    rows = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
    file.write_text("".join(["[plugins.audit]\n", *rows]), encoding="utf-8")
    return ["--atlas-plugin", "audit", "--atlas-config", str(file)]


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def wait_for(server: Server, path: Path, count: int) -> list[Any]:
    """The lines, once there are as many: they come some time after the answer."""
    server.wait_until(lambda: len(lines(path)) >= count)
    return lines(path)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[Server]:
    with Server(options(directory, prompts="text", answers="text"), directory=directory) as server:
        yield server


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_every_route(server: Server, directory: Path, route: str, stream: bool) -> None:
    path = directory / "audit.jsonl"
    before = len(lines(path))
    body = {**BODIES[route], "ignore_eos": True, "stream": stream, "user": "u1", "atlas": {"session_id": "s"}}
    answer = server.post(route, body, headers={"X-Request-Id": "mine"})
    line = wait_for(server, path, before + 1)[-1]
    assert (line["route"], line["request_id"], line["outcome"]) == (route, "mine", "ok")
    assert (line["who"]["user"], line["who"]["session"]) == ("u1", "s")
    assert line["prompt"] == ["My name is Ada. What is my name?"]
    [said] = line["answer"]
    assert said
    assert line["record"]["streamed"] is stream
    if not stream:
        assert json.dumps(said) in answer.text


def test_requests_that_fail(server: Server, directory: Path) -> None:
    path = directory / "audit.jsonl"
    before = len(lines(path))
    assert server.post(CHAT, {"messages": "none"}).status_code == 400
    assert server.post(CHAT, {**BODIES[CHAT], "atlas": {"memory_layers": 77}}).status_code == 400
    new = wait_for(server, path, before + 2)[before:]
    assert [line["outcome"] for line in new] == ["error", "error"]


def test_who(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*options(tmp_path, headers=["X-Team"]), *key_options(tmp_path)], api_key=ADMIN)
    for key in (ADA, ADMIN):
        with_key(server, key).post(CHAT, BODIES[CHAT], headers={"X-Team": "blue"})
    ada, admin = sorted(
        wait_for(server, tmp_path / "audit.jsonl", 2), key=lambda line: line["who"]["is_admin"]
    )
    assert (len(ada["who"]["tenant"]), admin["who"]["tenant"]) == (16, "")
    assert ada["who"]["headers"] == {"x-team": "blue"}
    assert ADA not in (tmp_path / "audit.jsonl").read_text()


def test_kill_9(start_server: StartServer, tmp_path: Path) -> None:
    """All whole lines stay; a broken one is cut off, and the next comes in its place."""
    path = tmp_path / "audit.jsonl"
    server = start_server(options(tmp_path))
    for _ in range(3):
        server.post(CHAT, BODIES[CHAT])
    before = wait_for(server, path, 3)
    server.kill()
    assert lines(path) == before
    with path.open("ab") as file:
        file.write(b'{"time":"2026-11-2')
    server.start()
    assert server.logged("ended within a line; 18 bytes of it are cut off")
    server.post(CHAT, BODIES[CHAT])
    assert wait_for(server, path, 4)[:3] == before
    assert path.stat().st_mode & 0o777 == 0o600


def test_lines_of_the_last_moment(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(options(tmp_path, fsync="never"))
    for _ in range(20):
        server.post(CHAT, {**BODIES[CHAT], "max_tokens": 1})
    assert server.stop() == 0
    assert len(lines(tmp_path / "audit.jsonl")) == 20


def test_rotation(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(options(tmp_path, max_bytes=4096, keep=2))
    for _ in range(30):
        server.post(CHAT, {**BODIES[CHAT], "max_tokens": 1})
    assert server.stop() == 0
    files = sorted(path for path in tmp_path.glob("audit.jsonl*") if path.suffix != ".lock")
    assert [file.name for file in files] == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(file.stat().st_size <= 4096 and lines(file) for file in files)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk", 8 << 20)
    yield disk
    disk.close()


def test_a_full_disk(tmp_path: Path, small_disk: SmallDisk) -> None:
    """Requests go on, the status says it, and what was kept is written when there is room."""
    server = Server(options(tmp_path, path=str(small_disk.path / "audit.jsonl")), directory=tmp_path)
    server.command[:0] = small_disk.enter
    path = small_disk.outside / "audit.jsonl"

    def problems() -> list[str]:
        status = server.get("/v1/atlas/status").json()
        return [one for one in status["problems"] if "audit log" in one]

    def ask(name: str) -> None:
        answer = server.post(CHAT, {**BODIES[CHAT], "max_tokens": 1}, headers={"X-Request-Id": name})
        assert answer.status_code == 200

    with server:
        ask("before")
        wait_for(server, path, 1)
        small_disk.fill()
        for i in range(40):
            ask(f"full{i}")
        server.wait_until(lambda: bool(problems()))
        assert "No space left on device" in problems()[0]
        small_disk.make_room()
        ask("after")
        names = [line["request_id"] for line in wait_for(server, path, 42)]
        assert names == ["before", *(f"full{i}" for i in range(40)), "after"]
        server.wait_until(lambda: not problems())
        assert server.log.count("the audit log is not written") == 1
        metrics = server.get("/v1/atlas/metrics/prometheus").text
        assert 'atlas_plugin_audit_lines_total{result="written"} 42' in metrics


def test_wrong_configuration(spawn_server: StartServer, tmp_path: Path) -> None:
    server = spawn_server([*options(tmp_path, keep=0), "--atlas-require-python"])
    assert server.wait() != 0
    assert "plugin 'audit'" in server.log
    assert "keep" in server.log
