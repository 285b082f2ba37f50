"""The ready-made plugin `shelf`: what its file keeps, and gives up."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin.errors import PluginError
from atlas_plugin.testing import Application, AskedTier, FakeHost

Open = Callable[..., AskedTier]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shelf.sqlite3"


@pytest.fixture
def open_shelf(monkeypatch: pytest.MonkeyPatch, path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def opening(**fields: Any) -> AskedTier:
            for name, value in {"path": path, **fields}.items():
                monkeypatch.setenv(f"ATLAS_PLUGIN_SHELF_{name.upper()}", f"{value}")
            application = stack.enter_context(Application(FakeHost(plugins=["shelf"])))
            return application.tier(fields.get("layer", 4))

        yield opening


def test_what_one_server_puts_another_gets(open_shelf: Open, path: Path) -> None:
    first, second = open_shelf(), open_shelf()
    first.put("a", b"first")
    first.put("a", b"second")
    first.put("b", bytes(1 << 20))
    assert second.probe(["a", "x", "b"]) == [True, False, True]
    assert second.get(["a", "b", "x"]) == [b"second", bytes(1 << 20)]
    assert second.keep(["x", "a"]) == [False, True]
    second.remove(["a", "x"])
    assert first.probe(["a", "b"]) == [False, True]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_was_used_longest_ago_goes_first(open_shelf: Open) -> None:
    shelf = open_shelf(max_bytes=300)
    for key in "abc":
        shelf.put(key, bytes(100))
    shelf.keep(["a"])
    shelf.put("d", bytes(150))
    assert shelf.probe(["a", "b", "c", "d"]) == [True, False, False, True]
    shelf.put("e", bytes(301))  # alone it is too much
    assert shelf.probe(["a", "d", "e"]) == [False, False, False]


def test_what_nobody_used_in_time_is_gone(open_shelf: Open) -> None:
    shelf = open_shelf()
    shelf.put("a", b"1", ttl_s=0)
    shelf.put("b", b"1", ttl_s=60)
    assert shelf.probe(["a", "b"]) == [False, True]
    assert shelf.keep(["b"], ttl_s=0) == [False]


def test_any_thread_may_ask(open_shelf: Open) -> None:
    shelf = open_shelf()
    found: list[bytes] = []

    def use(number: int) -> None:
        shelf.put(f"{number}", f"{number}".encode())
        found.extend(shelf.get([f"{number}"]))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [f"{number}".encode() for number in range(8)]


def test_a_file_that_is_none(open_shelf: Open, path: Path) -> None:
    path.write_bytes(b"no database, but as long as one would be" * 100)
    with pytest.raises(PluginError, match="file is not a database"):
        open_shelf()


def test_a_file_of_a_newer_version(open_shelf: Open, path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 2")
    with pytest.raises(PluginError, match="has version 2, and this ATLAS knows 1"):
        open_shelf()
