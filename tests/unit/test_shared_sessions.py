"""Records of sessions that servers share: their order, and what becomes of it when the store fails."""

import random
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from atlas_plugin import json_text
from atlas_plugin.errors import AtlasError, UnavailableError
from atlas_plugin.memory.limits import Limits
from atlas_plugin.memory.record_store import RecordStore
from atlas_plugin.memory.shared_sessions import SharedSessions
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.shared_turns import SharedTurns
from atlas_plugin.storage.turn_order import Turn, in_order
from atlas_plugin.testing import FakeHost
from tests.unit.shared_store import (
    Message,
    Server,
    Servers,
    SharedStore,
    assistant,
    exchange,
    name_of,
    user,
)


def test_a_session_goes_on_with_another_server(servers: Servers) -> None:
    a, b = servers("a"), servers("b")
    assert [a.say("1"), b.say("2"), a.say("3")] == [None] * 3
    assert a.record() == b.record() == ["1", "1!", "2", "2!", "3", "3!"]
    assert (a.shared.counts.shared, a.shared.counts.taken) == (2, 1)


def test_nothing_is_shared_without_a_store(tmp_path: Path) -> None:
    host = FakeHost(memory_save_path=str(tmp_path))
    shared = SharedSessions(RecordStore(host), SharedTurns(Database(tmp_path)), Limits(host), lambda _: None)
    assert (shared.is_on, shared.new_turn(), shared.refresh("s"), shared.status()) == (
        False,
        None,
        None,
        None,
    )


def test_at_the_same_moment_both_are_recorded(servers: Servers) -> None:
    a, b = servers("a"), servers("b")
    a.say("0")
    b.record()
    for one, other in pairwise("123456"):
        # Both have read the same record.
        turn = a.shared.new_turn()
        a.conversations.append("s", exchange(f"a{one}"), 10**6, turn)
        b.add(exchange(f"b{other}"))
        assert a.shared.share("s") is None
    assert a.record() == b.record()
    assert len(a.here()) == 2 + 4 * 5
    assert a.shared.counts.contested == 5


def test_many_threads_on_two_servers(servers: Servers) -> None:
    both = servers("a"), servers("b")

    def talk(server: Server, name: str) -> None:
        for number in range(6):
            server.say(f"{name}{number}", f"s{number % 2}")

    threads = [
        threading.Thread(target=talk, args=(server, f"{server is both[0]}-{number}-"))
        for server in both
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for session in ("s0", "s1"):
        record = both[0].record(session)
        assert record == both[1].record(session)
        assert len(record) == len(set(record)) == 6 * 3 * 2
        assert all(second == f"{first}!" for first, second in zip(record[::2], record[1::2], strict=True))


def test_while_the_store_does_not_work_turns_wait(servers: Servers, store: SharedStore) -> None:
    a, b = servers("a"), servers("b")
    a.say("1")
    b.record()
    store.problem = "nobody answers"
    reason = b.say("2")
    assert reason is not None
    assert "nobody answers" in reason
    assert b.shared.refresh("s") == reason
    b.add(exchange("2"))
    b.shared.sync()
    assert (b.here(), b.shared.status()["waiting"]) == (["1", "1!", "2", "2!"], 1)  # type: ignore[index]
    store.problem = None
    a.say("3")
    b.shared.sync()
    assert a.record() == b.record() == ["1", "1!", "3", "3!", "2", "2!"]
    assert b.shared.status()["waiting"] == 0  # type: ignore[index]


def test_an_answer_that_was_lost_is_not_recorded_twice(servers: Servers, store: SharedStore) -> None:
    a, b = servers("a"), servers("b")
    a.say("1")
    store.lose_answers = 1
    assert "did not answer" in str(a.add(exchange("2")))
    b.say("3")
    assert a.shared.share("s") is None
    assert a.record() == b.record() == ["1", "1!", "2", "2!", "3", "3!"]


def test_a_turn_that_was_shared_before_a_crash_is_not_recorded_twice(
    servers: Servers, store: SharedStore, tmp_path: Path
) -> None:
    a = servers("a")
    a.say("1")
    turn = a.shared.new_turn()
    a.conversations.append("s", exchange("2"), 10**6, turn)  # and no more
    again = Server(tmp_path / "a", store)
    again.shared.sync()
    assert servers("b").record() == again.record() == ["1", "1!", "2", "2!"]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_store_that_comes_back_empty_is_told_again(
    servers: Servers, store: SharedStore, order: str
) -> None:
    both = {"a": servers("a"), "b": servers("b")}
    for text in ("1", "2"):
        both["a"].say(text)
    both["b"].record()
    both["a"].say("3")  # which b does not have
    store.clear()
    for name in order:
        both[name].say(f"4{name}")
    record = both["a"].record()
    assert record == both["b"].record() == servers("c").record()
    # What only a had comes when it tells, behind what was recorded before that.
    assert sorted(record) == sorted(text + end for text in ("1", "2", "3", "4a", "4b") for end in ("", "!"))
    assert record[:4] == ["1", "1!", "2", "2!"]


def test_a_store_that_gave_up_some_gets_them_again(servers: Servers, store: SharedStore) -> None:
    a = servers("a")
    for number in range(4):
        a.say(str(number))
    a.names.sync()
    record = a.turns.state("s").record
    for number in (1, 3):
        del store.values[name_of(record), f"turn.{number}"]
    with pytest.raises(UnavailableError, match=r"turn 1 of session 's' is missing .* volatile-lru"):
        servers("b").record()
    assert a.say("4") is None
    assert servers("b").record() == a.record()
    assert len(a.here()) == 10


class TestDeletion:
    def test_is_one_on_all_servers(self, servers: Servers, store: SharedStore) -> None:
        a, b = servers("a"), servers("b")
        a.say("1")
        b.say("2")
        record = a.turns.state("s").record
        assert a.forget()
        assert store.parts(record) == []
        assert (b.record(), b.rows.has("s")) == ([], False)
        b.say("3")
        assert a.record() == b.record() == ["3", "3!"]

    def test_of_what_is_only_elsewhere(self, servers: Servers) -> None:
        a, b = servers("a"), servers("b")
        a.say("1")
        assert b.forget()
        assert not b.forget("nobody's")
        assert a.record() == []

    @pytest.mark.parametrize("empty", [False, True])
    def test_while_the_store_does_not_work(self, servers: Servers, store: SharedStore, empty: bool) -> None:
        a, b = servers("a"), servers("b")
        a.say("1")
        b.record()
        store.problem = "nobody answers"
        assert a.forget()
        b.say("2")
        store.problem = None
        if empty:
            store.clear()
        a.shared.sync()
        b.shared.sync()
        if not empty:  # else nobody is there any more who knows that it was deleted
            assert a.record() == b.record() == servers("c").record() == []

    def test_and_begun_anew_before_the_store_knows(self, servers: Servers, store: SharedStore) -> None:
        a, b = servers("a"), servers("b")
        a.say("1")
        b.record()
        store.problem = "nobody answers"
        a.forget()
        a.say("2")
        a.add(exchange("2"))
        store.problem = None
        assert a.record() == b.record() == ["2", "2!"]

    def test_of_what_nobody_knows(self, servers: Servers, store: SharedStore) -> None:
        store.problem = "nobody answers"
        with pytest.raises(AtlasError, match="nobody answers"):
            servers("a").forget()


def test_what_was_recorded_before_is_shared(servers: Servers) -> None:
    a, b = servers("a"), servers("b")
    for server in (a, b):  # as their clients sent everything, or nothing was shared
        server.conversations.append("s", exchange("1"), 10**6)
    a.say("2")
    assert b.say("3") is None
    assert a.record() == b.record() == ["1", "1!", "2", "2!", "3", "3!"]


def test_a_client_that_sends_all_may_change_the_record(servers: Servers) -> None:
    a, b = servers("a"), servers("b")
    a.say("1")
    a.say("2")
    a.conversations.replace({"s": [*exchange("1"), *exchange("other")]}, 10**6)
    a.say("3")
    assert a.record() == b.record() == ["1", "1!", "other", "other!", "3", "3!"]


def test_the_oldest_exchanges_go(servers: Servers) -> None:
    a, b = servers("a", max_state_bytes=2000), servers("b", max_state_bytes=2000)
    a.say([{"role": "system", "content": "Be brief."}, *exchange("first")])
    for number in range(20):
        (a, b)[number % 2].say(f"{number:0100}")
    assert a.record() == b.record() == servers("c", max_state_bytes=2000).record()
    assert a.here()[0] == "Be brief."
    assert 5 <= len(a.here()) < 20
    assert a.here()[-1] == f"{19:0100}!"


def called(name: str) -> list[Message]:
    call = {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return [user(name), {"role": "assistant", "content": "", "tool_calls": [call]}]


def result(name: str) -> list[Message]:
    return [{"role": "tool", "tool_call_id": name, "content": "r"}, assistant("done")]


def test_results_come_behind_their_calls(servers: Servers) -> None:
    a, b = servers("a"), servers("b")
    a.say(called("call-1"))
    b.say("between")
    a.say(result("call-1"))
    assert a.record() == b.record() == ["call-1", "", "r", "done", "between", "between!"]


def test_any_order_of_turns_is_a_conversation() -> None:
    source = random.Random(5)
    system = {"role": "system", "content": "Be brief."}
    for _ in range(200):
        chains = [
            [called(f"{n}"), result(f"{n}")] if source.random() < 0.5 else [[system, *exchange(str(n))]]
            for n in range(4)
        ]
        log = []
        while any(chains):
            chain = source.choice([one for one in chains if one])
            log.append(chain.pop(0))
        turns = [Turn(str(n), [json_text.encode(one) for one in messages]) for n, messages in enumerate(log)]
        messages = [json_text.decode(one) for turn in in_order(turns) for one in turn.messages]
        roles = [one["role"] for one in messages]
        assert "system" not in roles[1:]
        assert len(messages) == sum(one["role"] != "system" for turn in log for one in turn) + (
            roles[0] == "system"
        )
        for before, after in pairwise(messages):
            assert (after["role"] == "tool") == ("tool_calls" in before)
            assert after["role"] != before["role"]
