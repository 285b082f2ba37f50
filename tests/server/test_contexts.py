"""Saved contexts over HTTP: what is stored, what is refused, and disks that fail."""

import json
import sqlite3
import stat
import string
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import StartServer
from tests.server.harness import Server

MAX_STATE_BYTES = 1_500_000


def save(server: Server, context_id: str, state: Any) -> httpx.Response:
    return server.post("/v1/atlas/memory/save", {"context_id": context_id, "state": state})


def load(server: Server, context_id: str) -> httpx.Response:
    return server.post("/v1/atlas/memory/load", {"context_id": context_id})


def ids(answer: httpx.Response) -> list[str]:
    return [context["context_id"] for context in answer.json()["data"]["contexts"]]


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, type and message of an error in the ATLAS format."""
    document = answer.json()
    assert document.keys() == {"error"}
    error = document["error"]
    assert error.keys() == {"code", "message", "type", "timestamp"}
    assert error["code"] == answer.status_code
    return answer.status_code, error["type"], error["message"]


def assert_completes(server: Server) -> None:
    assert server.post("/completion", {"prompt": "a", "n_predict": 1}).status_code == 200


class TestOperations:
    def test_save_load_overwrite_delete(self, server: Server) -> None:
        first = save(server, "crud", {"n": 1})
        assert first.status_code == 200
        assert first.json()["status"] == "success"
        assert first.json()["data"].keys() == {"context_id", "bytes", "created", "updated"}
        assert first.json()["data"]["bytes"] == len('{"n":1}')
        second = save(server, "crud", {"n": 2}).json()["data"]
        assert second["created"] == first.json()["data"]["created"] <= second["updated"]

        assert load(server, "crud").json()["data"] == {**second, "state": {"n": 2}, "session": None}
        deleted = server.post("/v1/atlas/memory/delete", {"context_id": "crud"})
        assert deleted.json() == {
            "status": "success",
            "data": {"context_id": "crud", "freed_bytes": len('{"n":2}')},
        }
        for again in (load(server, "crud"), server.post("/v1/atlas/memory/delete", {"context_id": "crud"})):
            assert error_of(again) == (404, "not_found", "no context 'crud'")

    @pytest.mark.parametrize(
        "state",
        [
            {},
            {"": {"a": [1, 2.5, -1e300, True, False, None, {"b": []}]}},
            {"\U0001d518nïcödé ⛵": '\u0000 \u001f \u2028 \U0010ffff "\\/'},
            {"integers": [2**63 - 1, -(2**63), 2**64 - 1, 0]},
            {"deep": json.loads("[" * 200 + "]" * 200)},
        ],
        ids=["empty", "every type", "unicode", "integers", "nesting"],
    )
    def test_states_come_back_as_they_were(self, server: Server, state: dict[str, Any]) -> None:
        assert save(server, "equal", state).status_code == 200
        assert load(server, "equal").json()["data"]["state"] == state

    @pytest.mark.parametrize(
        "context_id", ["a", "Z" * 128, string.ascii_letters + string.digits + "._:-", "..", "-", "a:b.c_d-e"]
    )
    def test_legal_ids(self, server: Server, context_id: str) -> None:
        assert save(server, context_id, {"id": context_id}).status_code == 200
        assert load(server, context_id).json()["data"]["state"] == {"id": context_id}

    @pytest.mark.parametrize(
        "context_id",
        ["", "a" * 129, "a b", "a/b", "../a", "ä", "a\n", "a\u0000", "a'b", 1, None, True, ["a"], {"a": 1}],
    )
    @pytest.mark.parametrize("operation", ["save", "load", "delete"])
    def test_illegal_ids(self, server: Server, operation: str, context_id: object) -> None:
        fields = {"context_id": context_id} | ({"state": {}} if operation == "save" else {})
        assert error_of(server.post(f"/v1/atlas/memory/{operation}", fields)) == (
            400,
            "validation_error",
            "Validation error in field 'context_id': "
            "value must be 1 to 128 characters of A-Z a-z 0-9 . _ : -",
        )

    def test_paging(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(["--atlas-memory-path", tmp_path / "memory"])
        expected = [f"page-{number:03}" for number in range(250)]
        for context_id in reversed(expected):
            assert save(server, context_id, {}).status_code == 200
        assert ids(server.post("/v1/atlas/memory/list")) == expected[:100]

        seen: list[str] = []
        cursor = None
        while len(seen) < 1000:
            page = server.post("/v1/atlas/memory/list", {"limit": 99, "cursor": cursor})
            seen += ids(page)
            cursor = page.json()["data"]["next_cursor"]
            if cursor is None:
                break
            # what is deleted behind the cursor moves nothing
            server.post("/v1/atlas/memory/delete", {"context_id": seen[0]})
        assert seen == expected


class TestRefusals:
    @pytest.mark.parametrize(
        ("operation", "fields", "field", "message"),
        [
            ("save", {"context_id": "a"}, "state", "value must be a JSON object"),
            ("save", {"context_id": "a", "state": [1]}, "state", "value must be a JSON object"),
            ("save", {"context_id": "a", "state": "text"}, "state", "value must be a JSON object"),
            ("save", {"context_id": "a", "state": {}, "ttl": 1}, "ttl", "there is no such field"),
            ("load", {"id": "a"}, "id", "there is no such field"),
            ("list", {"limit": 0}, "limit", "value must be a whole number from 1 to 1000"),
            ("list", {"limit": 1001}, "limit", "value must be a whole number from 1 to 1000"),
            ("list", {"limit": "10"}, "limit", "value must be a whole number from 1 to 1000"),
            ("list", {"limit": True}, "limit", "value must be a whole number from 1 to 1000"),
            ("list", {"cursor": "@@"}, "cursor", "value must be the next_cursor of an earlier answer"),
            ("list", {"cursor": 7}, "cursor", "value must be the next_cursor of an earlier answer"),
        ],
    )
    def test_wrong_fields(
        self, server: Server, operation: str, fields: dict[str, Any], field: str, message: str
    ) -> None:
        status, kind, text = error_of(server.post(f"/v1/atlas/memory/{operation}", fields))
        assert (status, kind) == (400, "validation_error")
        assert text.startswith(f"Validation error in field '{field}': {message}")

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"{", id="cut"),
            pytest.param(b"", id="empty"),
            pytest.param(b"[]", id="array"),
            pytest.param(b"null", id="null"),
            pytest.param(b'{"context_id": "a", "state": {}} x', id="trailing"),
            pytest.param(b'{"context_id": "a", "state": {"a": "\xff"}}', id="not UTF-8"),
            pytest.param(b'{"context_id": "a", "state": {"a": NaN}}', id="NaN"),
            pytest.param(b'{"context_id": "a", "state": {"a": "\\ud800"}}', id="lone surrogate"),
            pytest.param(b'{"context_id": "a", "state": ' + b'{"a":' * 100_000, id="too deep"),
        ],
    )
    def test_wrong_bodies(self, server: Server, body: bytes) -> None:
        answer = server.client.post("/v1/atlas/memory/save", content=body)
        assert error_of(answer)[:2] == (400, "validation_error")

    def test_unknown_operations_and_methods(self, server: Server) -> None:
        status, kind, message = error_of(server.post("/v1/atlas/memory/forget"))
        assert (status, kind) == (404, "not_found")
        assert message.endswith("GET /v1/atlas/openapi.json lists what there is")
        answer = server.get("/v1/atlas/memory/save")
        assert error_of(answer)[:2] == (405, "validation_error")
        assert answer.headers["Allow"] == "POST"

    def test_sizes(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(
            ["--atlas-memory-path", tmp_path / "memory", "--atlas-max-state-bytes", str(MAX_STATE_BYTES)]
        )
        largest = {"v": "x" * (MAX_STATE_BYTES - len('{"v":""}'))}
        assert save(server, "big", largest).json()["data"]["bytes"] == MAX_STATE_BYTES
        assert load(server, "big").json()["data"]["state"] == largest

        too_large = save(server, "big", {"v": largest["v"] + "x"})
        assert error_of(too_large) == (
            413,
            "validation_error",
            f"the state has {MAX_STATE_BYTES + 1} bytes; the limit for a state is {MAX_STATE_BYTES} bytes, "
            "set by --atlas-max-state-bytes or ATLAS_MAX_STATE_BYTES",
        )
        status, _, message = error_of(save(server, "big", {"v": "x" * 2 * MAX_STATE_BYTES}))
        assert status == 413
        assert message.startswith("the request body has ")
        assert load(server, "big").json()["data"]["state"] == largest

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "start the server with --atlas-memory-path DIR or set ATLAS_MEMORY_PATH"),
            (["--no-atlas-memory-persistence"], "turn it on with --atlas-memory-persistence"),
        ],
    )
    def test_without_persistence(
        self, start_server: StartServer, tmp_path: Path, options: list[str], message: str
    ) -> None:
        path = ["--atlas-memory-path", tmp_path / "memory"] if options else []
        server = start_server([*options, *path])
        for answer in (save(server, "a", {}), load(server, "a"), server.post("/v1/atlas/memory/list")):
            status, kind, text = error_of(answer)
            assert (status, kind) == (503, "service_unavailable")
            assert text.startswith("memory persistence is off: ")
            assert message in text
        # what C++ answers, without Python, is in the same format and gives the same reason
        flush = server.post("/v1/atlas/memory/flush")
        assert error_of(flush) == (503, kind, f"there is no memory to flush: {text}")
        assert list(flush.json()["error"]) == list(answer.json()["error"])
        document = server.get("/v1/atlas/status").json()
        assert document["data"]["in_effect"] == {
            "saving_off": text,
            "conversations_off": text,
            "metrics_off": None,
            "encrypted": False,
            "log_level": "info",
        }
        assert document["status"] == "healthy"
        assert document["data"]["memory_persistence"] is False
        assert not (tmp_path / "memory").exists()

    def test_without_the_api_key(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(["--atlas-memory-path", tmp_path / "memory"], api_key="secret")
        assert save(server, "a", {"mine": True}).status_code == 200
        for key in ({}, {"Authorization": "Bearer wrong"}):
            with httpx.Client(base_url=server.url, headers=key) as stranger:
                for answer in (
                    stranger.get("/v1/atlas/status"),
                    stranger.get("/v1/atlas/plugins"),
                    stranger.get("/v1/atlas/config"),
                    stranger.post("/v1/atlas/memory/save", json={"context_id": "a", "state": {}}),
                    stranger.post("/v1/atlas/memory/load", json={"context_id": "a"}),
                    stranger.post("/v1/atlas/memory/list", json={}),
                    stranger.post("/v1/atlas/memory/delete", json={"context_id": "a"}),
                    stranger.delete("/v1/atlas/x/anything"),
                ):
                    assert error_of(answer) == (401, "authentication_error", "Invalid API Key")
        assert load(server, "a").json()["data"]["state"] == {"mine": True}


class TestFiles:
    def test_permissions(self, start_server: StartServer, tmp_path: Path) -> None:
        memory = tmp_path / "far" / "memory"
        server = start_server(["--atlas-memory-path", memory])
        assert save(server, "a", {}).status_code == 200
        server.wait_until((memory / "model-hashes").exists)
        assert stat.S_IMODE(memory.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in memory.iterdir()}
        files = ("contexts.sqlite3", "contexts.sqlite3-wal", "contexts.sqlite3-shm", "model-hashes")
        assert modes == dict.fromkeys(files, 0o600) | dict.fromkeys(("blocks", "roots", "tmp"), 0o700)

    def test_an_open_directory_is_named(self, start_server: StartServer, tmp_path: Path) -> None:
        memory = tmp_path / "memory"
        memory.mkdir(mode=0o755)
        server = start_server(["--atlas-memory-path", memory])
        assert server.logged(f"{memory} is open to other users of this machine")

    @pytest.mark.parametrize("place", ["below a file", "/proc/atlas"])
    def test_a_path_that_cannot_be_made(self, start_server: StartServer, tmp_path: Path, place: str) -> None:
        (tmp_path / "file").touch()
        memory = Path(place) if place.startswith("/") else tmp_path / "file" / "memory"
        server = start_server(["--atlas-memory-path", memory])
        assert_broken(server, "Failed to save context state: ", f"permissions of {memory}")

    def test_a_path_that_vanishes_and_returns(self, start_server: StartServer, tmp_path: Path) -> None:
        memory, away = tmp_path / "memory", tmp_path / "away"
        server = start_server(["--atlas-memory-path", memory])
        assert save(server, "a", {"kept": True}).status_code == 200
        memory.rename(away)
        memory.touch()
        assert_broken(server, "Failed to save context state: ", f"permissions of {memory}")
        memory.unlink()
        away.rename(memory)
        assert load(server, "a").json()["data"]["state"] == {"kept": True}
        assert save(server, "a", {"kept": "again"}).status_code == 200
        # what works beside the requests tries again by itself
        server.wait_until(lambda: server.get("/v1/atlas/status").json()["status"] == "healthy")

    def test_a_file_that_is_no_database(self, start_server: StartServer, tmp_path: Path) -> None:
        memory = tmp_path / "memory"
        memory.mkdir(mode=0o700)
        garbage = b"no database " * 1000
        (memory / "contexts.sqlite3").write_bytes(garbage)
        server = start_server(["--atlas-memory-path", memory])
        assert moved_aside(server, memory).read_bytes() == garbage

    def test_a_file_that_is_damaged_within(self, start_server: StartServer, tmp_path: Path) -> None:
        memory = tmp_path / "memory"
        server = start_server(["--atlas-memory-path", memory])
        for number in range(50):
            save(server, f"{number}", {"text": "x" * 4000})
        assert server.stop() == 0
        path = memory / "contexts.sqlite3"
        data = path.read_bytes()
        damaged = data[:4096] + b"\xff" * (len(data) - 4096)
        path.write_bytes(damaged)
        server = start_server(["--atlas-memory-path", memory])
        assert moved_aside(server, memory).read_bytes() == damaged

    def test_a_database_of_a_newer_version(self, start_server: StartServer, tmp_path: Path) -> None:
        memory = tmp_path / "memory"
        memory.mkdir(mode=0o700)
        connection = sqlite3.connect(memory / "contexts.sqlite3")
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        server = start_server(["--atlas-memory-path", memory])
        expected = f"{memory}/contexts.sqlite3 has schema version 99 and this ATLAS knows "
        status, kind, message = error_of(save(server, "a", {}))
        assert (status, kind) == (503, "service_unavailable")
        assert message.startswith(expected)
        assert server.logged(expected)
        document = server.get("/v1/atlas/status").json()
        assert document["status"] == "degraded"
        assert message in document["problems"]
        assert_completes(server)


def assert_broken(server: Server, *reasons: str) -> None:
    """Saving fails for these reasons, the status and the log say so, and completions go on."""
    status, kind, message = error_of(save(server, "a", {"n": 1}))
    assert (status, kind) == (500, "server_error")
    for reason in reasons:
        assert reason in message
    assert server.logged(message)
    document = server.get("/v1/atlas/status").json()
    assert document["status"] == "degraded"
    assert document["data"]["memory_persistence"] is False
    assert any(reasons[-1] in problem for problem in document["problems"])
    assert_completes(server)


def moved_aside(server: Server, memory: Path) -> Path:
    """Contexts are saved in a fresh file; status and log name the damaged one, which is returned."""
    assert save(server, "fresh", {"n": 1}).status_code == 200
    assert load(server, "fresh").json()["data"]["state"] == {"n": 1}
    [aside] = memory.glob("contexts.sqlite3.damaged-*")
    assert server.logged(str(aside))
    document = server.get("/v1/atlas/status").json()
    assert document["status"] == "degraded"
    assert document["data"]["memory_persistence"] is True
    assert any(str(aside) in problem for problem in document["problems"])
    assert_completes(server)
    return aside


def test_many_clients_at_once(server: Server) -> None:
    failures: list[str] = []

    def work(worker: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60.0) as client:
            for number in range(25):
                own, shared = f"own-{worker}-{number}", f"shared-{number}"
                state = {"worker": worker, "number": number, "text": "ä" * number * 10}
                for context_id in (own, shared):
                    saved = client.post(
                        "/v1/atlas/memory/save", json={"context_id": context_id, "state": state}
                    )
                    if saved.status_code != 200:
                        failures.append(saved.text)
                mine = client.post("/v1/atlas/memory/load", json={"context_id": own}).json()
                if mine["data"]["state"] != state:
                    failures.append(f"{own}: {mine}")
                anyones = client.post("/v1/atlas/memory/load", json={"context_id": shared}).json()
                if anyones["data"]["state"]["number"] != number:
                    failures.append(f"{shared}: {anyones}")

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for worker in range(8):
        for number in range(25):
            state = load(server, f"own-{worker}-{number}").json()["data"]["state"]
            assert (state["worker"], state["number"]) == (worker, number)
