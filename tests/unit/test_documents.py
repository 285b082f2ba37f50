"""Saved contexts: the store, and the routes over it."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atlas_plugin import Response
from atlas_plugin.host import worker
from atlas_plugin.storage import listing
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.documents import DocumentStore
from atlas_plugin.testing import Application, FakeHost

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]
Memory = Callable[..., tuple[int, Any]]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "memory")
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> DocumentStore:
    return DocumentStore(database)


def names(database: Database, limit: int = 1000, after: str = "") -> list[str]:
    return [item.context_id for item in listing.page(database, limit, after)]


@pytest.fixture
def memory(tmp_path: Path, start: Start, call: Call) -> Memory:
    """memory(operation, **fields): the status and the document of the answer."""
    application = start(FakeHost(memory_save_path=str(tmp_path / "memory"), max_state_bytes=2000))

    def operate(operation: str, body: bytes | None = None, **fields: Any) -> tuple[int, Any]:
        sent = msgspec.json.encode(fields) if body is None else body
        response = call(application, "POST", f"/v1/atlas/memory/{operation}", body=sent)
        return response.status, msgspec.json.decode(response.body)

    return operate


class TestStore:
    def test_save_keeps_created(self, store: DocumentStore) -> None:
        first = store.save("a", b"{}")
        second = store.save("a", b'{"n":1}')
        assert second.created == first.created <= first.updated <= second.updated
        assert second.bytes == 7
        assert store.load("a") == (second, b'{"n":1}')

    def test_what_is_not_there(self, store: DocumentStore) -> None:
        assert store.load("a") is None
        assert store.delete("a") is None
        store.save("a", b"{}")
        assert store.delete("a") == 2
        assert store.load("a") is None

    def test_pages_are_in_order_of_ids(self, store: DocumentStore, database: Database) -> None:
        for name in ("b", "B", "a:1", "a"):
            store.save(name, b"{}")
        assert names(database, 3) == ["B", "a", "a:1"]
        assert names(database, 3, "a") == ["a:1", "b"]

    def test_it_is_on_disk_when_save_returns(self, store: DocumentStore, database: Database) -> None:
        saved = store.save("a", b'{"n":1}')
        other = Database(database.path.parent)
        assert DocumentStore(other).load("a") == (saved, b'{"n":1}')
        other.close()
        database.close()
        assert store.load("a") == (saved, b'{"n":1}'), "a closed database opens itself again"

    def test_many_threads(self, store: DocumentStore, database: Database) -> None:
        def work(thread: int) -> None:
            for i in range(20):
                store.save(f"{thread}-{i}", b"{}")
                store.save("shared", b"{}")
                names(database, 10)
                if i % 2:
                    assert store.delete(f"{thread}-{i}") == 2

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(names(database)) == 8 * 10 + 1


class TestRoutes:
    def test_save_load_list_delete(self, memory: Memory) -> None:
        nested = msgspec.json.decode(b"[" * 300 + b"]" * 300)
        numbers = [1, 2.5, -0.0, 2**63, 10**30]
        state = {"text": "ü\u0000", "numbers": numbers, "nested": {"": None, "deep": nested}}
        status, saved = memory("save", context_id="a.b:c_D-1", state=state)
        assert status == 200
        assert saved["status"] == "success"
        size = len(msgspec.json.encode(state))
        info = {"context_id": "a.b:c_D-1", "bytes": size, "created": saved["data"]["created"]}
        assert saved["data"] == {**info, "updated": info["created"]}
        status, loaded = memory("load", context_id="a.b:c_D-1")
        assert status == 200
        assert loaded["data"] == {**saved["data"], "state": state, "session": None}
        status, listed = memory("list")
        assert status == 200
        assert listed["data"] == {"contexts": [{**saved["data"], "session": None}], "next_cursor": None}
        assert memory("list", b"")[0] == 200
        assert memory("delete", context_id="a.b:c_D-1") == (
            200,
            {"status": "success", "data": {"context_id": "a.b:c_D-1", "freed_bytes": size}},
        )
        for operation in ("load", "delete"):
            status, missing = memory(operation, context_id="a.b:c_D-1")
            assert (status, missing["error"]["type"]) == (404, "not_found")
            assert "a.b:c_D-1" in missing["error"]["message"]

    def test_list_is_paged(self, memory: Memory) -> None:
        expected = [f"{number:03}" for number in range(7)]
        for name in expected:
            memory("save", context_id=name, state={})
        seen: list[list[str]] = []
        cursor: str | None = None
        while cursor is not None or not seen:
            page = memory("list", limit=3, cursor=cursor)[1]["data"]
            seen.append([item["context_id"] for item in page["contexts"]])
            cursor = page["next_cursor"]
            memory("delete", context_id=seen[-1][-1])
        assert seen == [expected[:3], expected[3:6], expected[6:]], (
            "deleting the last of a page loses nothing"
        )

    @pytest.mark.parametrize(
        ("operation", "body", "field"),
        [
            ("save", b"", "context_id"),
            ("save", b"{", "body"),
            ("save", b"[]", "body"),
            ("save", b'{"context_id": "a"}', "state"),
            ("save", b'{"context_id": "a", "state": []}', "state"),
            ("save", b'{"context_id": "a", "state": null}', "state"),
            ("save", b'{"context_id": "a", "state": {}, "stat": 1}', "stat"),
            ("load", b'{"context_id": ""}', "context_id"),
            ("load", b'{"context_id": "a/../b"}', "context_id"),
            ("load", b'{"context_id": "a\\n"}', "context_id"),
            ("load", '{"context_id": "ü"}'.encode(), "context_id"),
            ("load", b'{"context_id": 1}', "context_id"),
            ("load", b'{"context_id": "' + b"a" * 129 + b'"}', "context_id"),
            ("list", b'{"limit": 0}', "limit"),
            ("list", b'{"limit": 1001}', "limit"),
            ("list", b'{"limit": true}', "limit"),
            ("list", b'{"limit": null}', "limit"),
            ("list", b'{"limit": 1.0}', "limit"),
            ("list", b'{"cursor": "!"}', "cursor"),
            ("list", b'{"cursor": "YQ"}', "cursor"),
            ("list", b'{"cursor": "Lw=="}', "cursor"),
            ("list", '{"cursor": "ü"}'.encode(), "cursor"),
            ("list", b'{"cursor": 1}', "cursor"),
            ("list", b'{"tenant": "A123456789abcdef"}', "tenant"),
            ("list", b'{"model": 1}', "model"),
            ("save", b"[" * 2000 + b"]" * 2000, "body"),
            ("delete", b'{"id": "a"}', "id"),
            ("pin", b"{}", "session_id"),
            ("pin", b'{"session_id": "a b"}', "session_id"),
            ("unpin", b'{"context_id": ""}', "context_id"),
            ("unpin", b'{"session_id": "a", "context_id": "a"}', "context_id"),
        ],
    )
    def test_what_is_wrong_is_named(self, memory: Memory, operation: str, body: bytes, field: str) -> None:
        status, answer = memory(operation, body)
        assert (status, answer["error"]["type"]) == (400, "validation_error")
        assert answer["error"]["message"].startswith(f"Validation error in field '{field}': ")

    def test_the_longest_id(self, memory: Memory) -> None:
        assert memory("save", context_id="a" * 128, state={})[0] == 200

    def test_the_largest_state(self, memory: Memory) -> None:
        assert memory("save", context_id="a", state={"t": "a" * 1992})[0] == 200
        status, answer = memory("save", context_id="a", state={"t": "a" * 1993})
        assert (status, answer["error"]["code"], answer["error"]["type"]) == (413, 413, "validation_error")
        assert "2001 bytes; the limit for a state is 2000 bytes" in answer["error"]["message"]
        assert "ATLAS_MAX_STATE_BYTES" in answer["error"]["message"]
        assert len(memory("load", context_id="a")[1]["data"]["state"]["t"]) == 1992

    def test_a_huge_body_is_not_even_parsed(self, memory: Memory) -> None:
        status, answer = memory("save", b"{" * (2000 + 64 * 1024 + 1))
        assert (status, answer["error"]["type"]) == (413, "validation_error")

    def test_unknown_operation(self, memory: Memory) -> None:
        status, answer = memory("forget")
        assert (status, answer["error"]["type"]) == (404, "not_found")
        assert "GET /v1/atlas/openapi.json lists what there is" in answer["error"]["message"]

    def test_a_body_for_a_router_works_here_too(self, memory: Memory) -> None:
        assert memory("save", context_id="a", state={}, model="any")[0] == 200
        assert memory("list", model="any")[0] == 200

    def test_a_failing_disk_does_not_stop_the_server(
        self,
        tmp_path: Path,
        start: Start,
        call: Call,
        eventually: Callable[[Callable[[], object]], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(worker, "RETRY_S", 0.002)
        directory = tmp_path / "memory"
        directory.touch()
        host = FakeHost(memory_save_path=str(directory))
        application = start(host)
        assert "Failed to open the context store" in host.log_text
        save = b'{"context_id": "a", "state": {}}'
        failed = call(application, "POST", "/v1/atlas/memory/save", body=save)
        assert failed.status == 500
        assert msgspec.json.decode(failed.body)["error"]["type"] == "server_error"
        status = msgspec.json.decode(call(application, "GET", "/v1/atlas/status").body)
        assert status["status"] == "degraded"
        assert status["data"]["memory_persistence"] is False
        assert str(directory) in status["problems"][0]
        directory.unlink()
        assert call(application, "POST", "/v1/atlas/memory/save", body=save).status == 200

        def is_healthy() -> bool:
            status = msgspec.json.decode(call(application, "GET", "/v1/atlas/status").body)
            return bool(status["status"] == "healthy" and status["data"]["memory_persistence"])

        eventually(is_healthy)

    @pytest.mark.parametrize(
        "settings", [{}, {"memory_save_path": "unused", "enable_memory_persistence": False}]
    )
    def test_without_a_place(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        start: Start,
        call: Call,
        settings: dict[str, Any],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        host = FakeHost(**settings)
        application = start(host)
        response = call(application, "POST", "/v1/atlas/memory/list", body=b"{}")
        error = msgspec.json.decode(response.body)["error"]
        assert (response.status, error["type"]) == (503, "service_unavailable")
        assert error["message"] == host.status()["in_effect"]["saving_off"]
        status = msgspec.json.decode(call(application, "GET", "/v1/atlas/status").body)
        assert (status["status"], status["data"]["memory_persistence"]) == ("healthy", False)
        assert not list(tmp_path.iterdir())
