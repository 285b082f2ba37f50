"""Slots that share cells are emptied when another gets a task, as upstream does; the memory has it all."""

from pathlib import Path

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import ASK_CITY, COLD, REUSED, Conversation, chat, memory_options
from tests.server.harness import Server

CELLS = 2048
# Each of a conversation needs a bit less than half of them.
ITEMS = 90
SHARED = ["-np", "4", "-c", str(CELLS), "--kv-unified"]


def ask(server: Server, told: Conversation, **fields: object) -> tuple[int | None, str | None]:
    """The layer that the conversation came from, 0 for a slot, and why nothing was reused."""
    answer = chat(server, told.asking(ASK_CITY), atlas={}, **fields)
    return answer.layer, answer.reason


def ask_each_in_its_slot(server: Server) -> list[tuple[int | None, str | None]]:
    """Ask in two conversations, which have a slot each."""
    return [ask(server, Conversation(number), id_slot=number) for number in range(2)]


def test_more_conversations_than_fit_come_back(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), *SHARED])
    told = [Conversation(number, ITEMS) for number in range(4)]
    assert [ask(server, one) for one in told] == [(0, "no_match")] * 4
    assert [ask(server, one) for one in told] == [(1, None)] * 4
    assert [ask(server, one) for one in told] == [(1, None)] * 4
    assert "purging slot" not in server.log
    assert "--cache-idle-slots" not in server.log


def test_where_slots_keep_what_they_hold_room_is_made(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), *SHARED, "--no-cache-idle-slots"])
    told = [Conversation(number, ITEMS) for number in range(4)]
    assert [ask(server, one) for one in told] == [(0, "no_match")] * 4
    again = [ask(server, one) for one in told]
    assert {reason for _, reason in again} == {None}
    assert {layer for layer, _ in again} == {0, 1}


@pytest.mark.parametrize(
    "options",
    [
        [*SHARED, "--no-cache-idle-slots"],
        ["-np", "4", "-c", str(4 * CELLS), "--no-kv-unified"],
        [*SHARED, "--cache-ram", "0"],
    ],
    ids=["not wanted", "cells of their own", "nothing in RAM"],
)
def test_they_keep_what_they_hold(start_server: StartServer, tmp_path: Path, options: list[str]) -> None:
    server = start_server([*memory_options(tmp_path), *options])
    ask_each_in_its_slot(server)
    assert ask_each_in_its_slot(server) == [(0, None)] * 2


def test_what_the_memory_does_not_have_stays(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), *SHARED])
    assert ask(server, Conversation(0), id_slot=0, **COLD) == (0, "cache_prompt_off")
    ask(server, Conversation(1), id_slot=1)
    answer = chat(server, Conversation(0).asking(ASK_CITY), id_slot=0, atlas={})
    assert answer.reused > REUSED * answer.prompt
    assert answer.layer == 0
