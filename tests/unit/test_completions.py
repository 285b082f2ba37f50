"""Chat completions in the table of responses: lists, pages, filters, damage, and many of them."""

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from statistics import quantiles
from typing import Any

import msgspec
import pytest

from atlas_plugin.errors import NotFoundError, ServerError, ValidationError
from atlas_plugin.storage.completions import About, CompletionStore, Page
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.responses import ResponseStore

TENANT = "0123456789abcdef"
OTHER = "fedcba9876543210"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path)


@pytest.fixture
def store(database: Database) -> CompletionStore:
    return CompletionStore(database)


def put(store: CompletionStore, names: Iterable[str], tenant: str = TENANT, **fields: Any) -> None:
    for name in names:
        completion = {"id": f"chatcmpl-{name}", "model": "demo", "metadata": {}, **fields}
        store.put(tenant, completion, [{"role": "user", "content": f"asked {name}"}])


def names(page: Page) -> str:
    return "".join(name.removeprefix("chatcmpl-") for name in page.completions)


class TestOne:
    def test_comes_back(self, store: CompletionStore) -> None:
        put(store, "a", usage={"total_tokens": 7})
        assert msgspec.json.decode(store.get(TENANT, "chatcmpl-a"))["usage"] == {"total_tokens": 7}
        assert store.messages(TENANT, "chatcmpl-a") == [{"role": "user", "content": "asked a"}]

    def test_its_metadata_are_replaced(self, store: CompletionStore) -> None:
        put(store, "a", metadata={"topic": "names"})
        changed = store.set_metadata(TENANT, "chatcmpl-a", {"mood": "good"})
        assert store.get(TENANT, "chatcmpl-a") == changed
        assert msgspec.json.decode(changed)["metadata"] == {"mood": "good"}
        assert store.messages(TENANT, "chatcmpl-a")

    def test_is_its_tenants(self, store: CompletionStore) -> None:
        put(store, "a", tenant=OTHER)
        assert not store.delete(TENANT, "chatcmpl-a")
        for ask in (store.get, store.messages):
            with pytest.raises(NotFoundError, match="'chatcmpl-a'"):
                ask(TENANT, "chatcmpl-a")
        with pytest.raises(NotFoundError, match="'chatcmpl-a'"):
            store.set_metadata(TENANT, "chatcmpl-a", {})
        assert names(store.page(TENANT, 9)) == ""
        with pytest.raises(NotFoundError):
            store.page(TENANT, 9, after="chatcmpl-a")
        assert store.delete(OTHER, "chatcmpl-a")
        assert not store.delete(OTHER, "chatcmpl-a")

    @pytest.mark.parametrize("wrong", [[], {}, {"id": 7}, {"id": "resp_1"}])
    def test_what_is_none_is_not_kept(self, store: CompletionStore, wrong: Any) -> None:
        with pytest.raises(ValidationError, match="plugin"):
            store.put(TENANT, wrong, [])


class TestLists:
    def test_in_the_order_in_which_they_came(self, store: CompletionStore) -> None:
        put(store, "cab")
        put(store, "x", tenant=OTHER)
        assert store.page(TENANT, 3) == store.page(TENANT, 9)
        assert names(store.page(TENANT, 9)) == "cab"
        assert names(store.page(TENANT, 9, is_descending=True)) == "bac"

    def test_pages(self, store: CompletionStore) -> None:
        put(store, "abcde")
        first = store.page(TENANT, 2)
        assert (names(first), first.has_more) == ("ab", True)
        last = store.page(TENANT, 2, after="chatcmpl-c")
        assert (names(last), last.has_more) == ("de", False)
        back = store.page(TENANT, 2, after="chatcmpl-d", is_descending=True)
        assert (names(back), back.has_more) == ("cb", True)
        with pytest.raises(NotFoundError, match="'chatcmpl-z'"):
            store.page(TENANT, 2, after="chatcmpl-z")

    def test_filters_look_beyond_the_rows_that_are_read_at_once(self, store: CompletionStore) -> None:
        put(store, (str(i) for i in range(300)))
        put(store, "ab", metadata={"topic": "names"})

        def is_wanted(one: About) -> bool:
            return one.metadata.get("topic") == "names"

        page = store.page(TENANT, 1, is_wanted=is_wanted)
        assert (names(page), page.has_more) == ("a", True)
        page = store.page(TENANT, 1, after="chatcmpl-a", is_wanted=is_wanted)
        assert (names(page), page.has_more) == ("b", False)

    def test_a_damaged_one_does_not_hide_the_others(
        self, store: CompletionStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        put(store, "abc")
        with closing(sqlite3.connect(tmp_path / "contexts.sqlite3")) as connection, connection:
            connection.execute("UPDATE responses SET record = '{' WHERE id = 'chatcmpl-b'")
        assert names(store.page(TENANT, 9)) == "ac"
        assert "'chatcmpl-b' is damaged" in caplog.text
        with pytest.raises(ServerError, match="'chatcmpl-b' is damaged"):
            store.get(TENANT, "chatcmpl-b")


class TestBesideResponses:
    def test_neither_is_the_other(self, store: CompletionStore, database: Database) -> None:
        responses = ResponseStore(database)
        responses.put(TENANT, "resp_a", "", [], {"id": "resp_a"})
        put(store, "a")
        assert names(store.page(TENANT, 9)) == "a"
        assert not store.delete(TENANT, "resp_a")
        with pytest.raises(NotFoundError):
            store.get(TENANT, "resp_a")
        with pytest.raises(NotFoundError):
            responses.chain(TENANT, "chatcmpl-a")

    def test_both_are_pruned(self, store: CompletionStore, database: Database) -> None:
        responses = ResponseStore(database)
        put(store, "ab")
        responses.put(TENANT, "resp_a", "", [], {"id": "resp_a"})
        assert responses.prune(0, 2) == 1
        assert names(store.page(TENANT, 9)) == "b"


def test_one_page_of_very_many_is_read_alone(store: CompletionStore, database: Database) -> None:
    """By the processor time of the thread, as the machine may be busy."""
    n = 100_000
    put(store, "m")
    with database.write("fill") as connection:
        [record] = connection.execute("SELECT record FROM responses").fetchone()
        connection.executemany(
            "INSERT INTO responses VALUES (?, ?, 'chat.completion', 0, ?)",
            ((TENANT, f"chatcmpl-{i}", record) for i in range(n)),
        )
        connection.executemany(
            "INSERT INTO responses VALUES (?, ?, '', 0, ?)", ((TENANT, f"resp_{i}", record) for i in range(n))
        )
    times = []
    for i in range(200):
        after = f"chatcmpl-{i * 450 + 100}"
        began = time.thread_time()
        assert len(store.page(TENANT, 20, after=after, is_descending=i % 2 == 0).completions) == 20
        store.get(TENANT, after)
        times.append(time.thread_time() - began)
    assert quantiles(times, n=100)[98] < 0.005
