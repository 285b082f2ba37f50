"""How `retrieval` cuts documents, finds passages, and what it refuses at the start."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_plugin.errors import PluginError
from atlas_plugin.plugins.retrieval.collection import Collection, Passage, TooMuchError
from atlas_plugin.plugins.retrieval.texts import split, written
from atlas_plugin.testing import Application, FakeHost


@given(st.text(alphabet="ab .\n", max_size=300), st.integers(2, 40))
def test_passages_are_all_of_the_text(text: str, size: int) -> None:
    passages = split(text, size)
    assert all(0 < len(passage) <= size for passage in passages)
    assert "".join("".join(passages).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "passages"),
    [
        ("", []),
        (" \n ", []),
        ("short", ["short"]),
        ("One line.\n\nAnother one.", ["One line.", "Another one."]),
        ("A sentence. Another.", ["A sentence.", "Another."]),
        ("word word word word", ["word word", "word word"]),
        ("x" * 25, ["x" * 12, "x" * 12, "x"]),
    ],
)
def test_where_it_is_cut(text: str, passages: list[str]) -> None:
    assert split(text, 12) == passages


def test_passages_are_bounded_in_characters() -> None:
    passages = [Passage("a", "", 0, "x" * 50), Passage("b", "T", 0, "y" * 80), Passage("c", "", 0, "z" * 20)]
    text, taken = written(passages, 80)
    assert [passage.id for passage in taken] == ["a", "c"]
    assert text == "x" * 50 + "\n\n" + "z" * 20
    assert len(text) <= 80
    assert written(passages, 10) == ("", [])


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path / "c")


def add(collection: Collection, tenant: str, name: str, *passages: str, title: str = "") -> None:
    collection.add(tenant, name, title, list(passages), 100, 1000)


def found(collection: Collection, text: str, *tenants: str) -> list[str]:
    return [f"{p.id}:{p.number}" for p in collection.search(set(tenants), text, 10)]


def test_the_best_comes_first(collection: Collection) -> None:
    add(collection, "", "a", "Cats sleep.", "Dogs bark and bark at cats.")
    add(collection, "", "b", "Nothing of that.")
    add(collection, "", "c", "Of animals", title="Dogs")
    assert found(collection, "Do dogs bark?", "")[0] == "a:1"
    assert set(found(collection, "dogs", "")) == {"a:1", "c:0"}
    assert found(collection, "DÓGS", "")[:1] != []
    collection.close()


@pytest.mark.parametrize(
    "text", ["", "AND", "NOT cats", "tenant : x", "cats*", 'a" OR "b', "{title} : cats", "a_b __"]
)
def test_no_text_is_a_wrong_query(collection: Collection, text: str) -> None:
    add(collection, "0123456789abcdef", "a", "cats")
    hits = found(collection, text, "0123456789abcdef")
    assert hits == (["a:0"] if "cats" in text else [])
    assert found(collection, text, "fedcba9876543210", "") == []
    collection.close()


def test_limits_hold_and_what_failed_is_undone(collection: Collection) -> None:
    collection.add("t", "a", "", ["x" * 10], 2, 20)
    with pytest.raises(TooMuchError):
        collection.add("t", "a", "", ["y" * 21], 2, 20)
    assert found(collection, "x" * 10, "t") == ["a:0"]
    collection.add("t", "b", "", ["z" * 10], 2, 20)
    with pytest.raises(TooMuchError):
        collection.add("t", "c", "", ["z"], 2, 100)
    # Others have their own.
    collection.add("u", "c", "", ["z"], 2, 20)
    assert [row["id"] for row in collection.documents("t", "", 10)] == ["a", "b"]
    collection.close()


def test_searching_does_not_wait_for_who_adds(collection: Collection) -> None:
    add(collection, "", "a", "cats")
    with collection._transaction() as connection:
        connection.execute("DELETE FROM documents")
        hits: list[str] = []
        search = threading.Thread(target=lambda: hits.extend(found(collection, "cats", "")))
        search.start()
        search.join(10)
        assert hits == ["a:0"]
    collection.close()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "file"),
        ({"file": "/dev/null/x"}, "file"),
        ({"template": "nothing"}, "template"),
        ({"passages": "0"}, "passages"),
        ({"characters": "99"}, "characters"),
        ({"role": "assistant"}, "role"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], named: str) -> None:
    for name, value in fields.items():
        monkeypatch.setenv(f"ATLAS_PLUGIN_RETRIEVAL_{name.upper()}", value)
    with pytest.raises(PluginError, match=named), Application(FakeHost(plugins=["retrieval"])):
        pass
