"""What is kept of responses: chains, branches, what is pruned, and lists of items."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin.errors import NotFoundError, ServerError, ValidationError
from atlas_plugin.responses import items
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.responses import MAX_CHAIN, ResponseStore

TENANT = "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    return ResponseStore(Database(tmp_path))


def put(store: ResponseStore, name: str, previous: str = "", tenant: str = TENANT) -> None:
    asked = items.identified([{"role": "user", "content": f"asked {name}"}])
    answered = {"id": f"msg_{name}", "type": "message", "content": []}
    store.put(tenant, name, previous, asked, {"id": name, "output": [answered]})


def names(store: ResponseStore, last: str) -> list[str]:
    return [item["id"] for item in items.conversation(store.chain(TENANT, last)) if item["id"][4:] in "abcde"]


class TestChains:
    def test_in_the_order_of_the_conversation(self, store: ResponseStore) -> None:
        put(store, "a")
        put(store, "b", "a")
        put(store, "c", "b")
        put(store, "d", "a")
        assert names(store, "c") == ["msg_a", "msg_b", "msg_c"]
        assert names(store, "d") == ["msg_a", "msg_d"]

    def test_what_is_missing_is_named(self, store: ResponseStore) -> None:
        put(store, "a")
        put(store, "b", "a")
        assert store.delete(TENANT, "a")
        assert not store.delete(TENANT, "a")
        for last, missing in (("b", "'a'"), ("z", "'z'")):
            with pytest.raises(NotFoundError, match=missing):
                store.chain(TENANT, last)

    def test_those_of_others_are_not_there(self, store: ResponseStore) -> None:
        put(store, "a", tenant="fedcba9876543210")
        put(store, "b", "a")
        for read in (store.get, store.chain):
            with pytest.raises(NotFoundError):
                read(TENANT, "a")
        with pytest.raises(NotFoundError, match="'a'"):
            store.chain(TENANT, "b")

    def test_a_ring_in_a_damaged_file_ends(self, store: ResponseStore, tmp_path: Path) -> None:
        put(store, "a", "b")
        put(store, "b", "a")
        with pytest.raises(NotFoundError):
            store.chain(TENANT, "a")
        assert MAX_CHAIN > 1000

    def test_a_damaged_record_says_so(self, store: ResponseStore, tmp_path: Path) -> None:
        put(store, "a")
        with closing(sqlite3.connect(tmp_path / "contexts.sqlite3")) as connection, connection:
            connection.execute("UPDATE responses SET record = ?", (b'{"input": 7}',))
        with pytest.raises(ServerError, match="'a' is damaged"):
            store.get(TENANT, "a")


class TestPruning:
    def test_from_the_end_of_a_conversation(self, store: ResponseStore) -> None:
        put(store, "a")
        put(store, "b", "a")
        put(store, "c")
        assert store.prune(0, 2) == 1
        assert store.count() == 2
        with pytest.raises(NotFoundError):
            store.get(TENANT, "b")
        assert store.prune(0, 2) == 0
        assert store.prune(0, 0) == 0

    def test_what_is_too_old(self, store: ResponseStore, tmp_path: Path) -> None:
        put(store, "a")
        put(store, "b", "a")
        put(store, "c")
        with closing(sqlite3.connect(tmp_path / "contexts.sqlite3")) as connection, connection:
            connection.execute("UPDATE responses SET created = created - 100 WHERE id IN ('a', 'c')")
        assert store.prune(50, 0) == 1  # "b" still goes on from "a"
        assert store.count() == 2
        store.delete(TENANT, "b")
        assert store.prune(50, 0) == 1


class TestItems:
    def test_each_has_an_id_and_a_type(self) -> None:
        given: list[dict[str, Any]] = [
            {"role": "user", "content": "Hi"},
            {"type": "message", "role": "assistant", "content": "Ho", "id": "msg_1"},
            {"type": "function_call_output", "call_id": "call_1", "output": "7"},
        ]
        first, second, third = items.identified(given)
        assert first["content"] == [{"type": "input_text", "text": "Hi"}]
        assert second == {
            "id": "msg_1",
            "status": "completed",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Ho"}],
        }
        assert third["id"].startswith("fco_")
        assert {**given[2], "id": third["id"], "status": "completed"} == third

    def test_pages(self) -> None:
        whole = [{"id": f"msg_{i}"} for i in range(5)]
        page = items.page(whole, {"limit": "2", "order": "asc"})
        assert [item["id"] for item in page["data"]] == ["msg_0", "msg_1"]
        assert (page["first_id"], page["last_id"], page["has_more"]) == ("msg_0", "msg_1", True)
        page = items.page(whole, {"limit": "2", "after": "msg_1"})
        assert page["data"] == [{"id": "msg_0"}]
        assert page["has_more"] is False
        assert items.page([], {})["last_id"] is None

    @pytest.mark.parametrize(
        "query", [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"order": "up"}, {"after": "msg_9"}]
    )
    def test_a_wrong_page_is_named(self, query: dict[str, str]) -> None:
        with pytest.raises(ValidationError, match=f"'{next(iter(query))}'"):
            items.page([{"id": "msg_0"}], query)
