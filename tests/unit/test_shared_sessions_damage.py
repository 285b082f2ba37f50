"""Records of sessions that somebody else wrote, and lists of sessions that servers share."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from atlas_plugin import json_text
from atlas_plugin.memory.record_store import DamagedRecordError, Meta
from tests.unit.shared_store import (
    Servers,
    SharedStore,
    name_of,
    user,
)


class TestDamage:
    @pytest.mark.parametrize(
        "change",
        [
            lambda turn: b"nonsense",
            lambda turn: b"[" * 100_000,
            lambda turn: json_text.encode({**turn, "number": 0}),
            lambda turn: json_text.encode({**turn, "session": "other"}),
            lambda turn: json_text.encode({**turn, "messages": ["text"]}),
            lambda turn: json_text.encode({**turn, "messages": [{"content": "no role"}]}),
            lambda turn: json_text.encode({**turn, "messages": [user(nested(80))]}),  # type: ignore[arg-type]
        ],
    )
    def test_of_a_turn(
        self, servers: Servers, store: SharedStore, change: Callable[[dict[str, Any]], bytes]
    ) -> None:
        a, b = servers("a"), servers("b")
        a.say("1")
        a.say("2")
        key = name_of(a.turns.state("s").record), "turn.1"
        store.values[key] = change(json_text.decode(store.values[key]))
        with pytest.raises(DamagedRecordError, match="turn 1 of session 's' in test:// is damaged"):
            b.record()
        assert b.here() == []
        assert b.records.damaged == 1
        assert a.forget()
        b.say("3")
        assert b.record() == ["3", "3!"]

    def test_of_a_life(self, servers: Servers, store: SharedStore) -> None:
        a, b = servers("a"), servers("b")
        a.say("1")
        store.values[name_of("s"), "life.0"] = b"{}"
        with pytest.raises(DamagedRecordError, match="life 0 of session 's'"):
            b.record()
        a.forget()
        b.say("2")
        assert a.record() == b.record() == ["2", "2!"]

    def test_of_what_lists_say(self, servers: Servers, store: SharedStore) -> None:
        a, b = servers("a"), servers("b")
        for session in ("x", "y"):
            a.say("1", session)
        a.names.sync()
        store.values[name_of("x"), "meta"] = store.values[name_of("y"), "meta"]
        b.names.refresh()
        assert (b.rows.has("x"), b.rows.has("y")) == (False, True)
        assert b.records.damaged == 1


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class TestNames:
    def test_are_listed_everywhere(self, servers: Servers, store: SharedStore) -> None:
        a, b = servers("a"), servers("b")
        for session in ("one", "0123456789abcdef/one"):
            a.say("1", session)
        a.names.sync()
        b.names.refresh()
        assert set(b.turns.names().values()) == {"one", "0123456789abcdef/one"}
        a.forget("one")
        b.names.refresh()
        assert set(b.turns.names().values()) == {"0123456789abcdef/one"}
        # A store that comes back empty is told again.
        store.clear()
        b.names.refresh()
        b.names.sync()
        assert store.names == {name_of("0123456789abcdef/one")}

    def test_end_when_no_server_uses_them(self, servers: Servers, store: SharedStore) -> None:
        a, b = servers("a"), servers("b")
        for session in ("used", "idle", "pinned"):
            a.say("1", session)
        a.names.sync()
        b.names.refresh()
        now = time.time()
        for session, last_used, pinned in (("idle", now - 1000, False), ("pinned", now - 1000, True)):
            meta = Meta(session, 1, now - 2000, last_used, pinned, 1, a.turns.state(session).record)
            store.values[name_of(session), "meta"] = json_text.encode(meta)
        moments = dict.fromkeys(("used", "idle", "pinned"), now - 100)
        assert b.names.end_idle(moments) == ["idle"]
        assert store.parts("idle") == []
        assert name_of("idle") not in store.names
        store.problem = "nobody answers"
        assert b.names.end_idle(moments) == []
