"""A model that drafts for another: here the demo model does so for itself, and foretells all that it says."""

import re
from pathlib import Path
from typing import Any

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    ASK_NAME,
    GREEDY,
    ONE_THREAD,
    Conversation,
    block_files,
    flush,
    memory_options,
    memory_status,
)
from tests.server.harness import MODEL, STOCK_BINARY, Server

# A batch is small, so that all of a conversation is too much to be computed in one.
DRAFT: list[str | Path] = ["-md", MODEL, "--spec-type", "draft-simple", "-b", "64", "-ub", "64"]


def restored(server: Server) -> list[tuple[int, int]]:
    """For each restore, how many tokens of the draft came back, and of how many."""
    found = re.findall(r"(\d+) of (\d+) tokens of the draft restored", server.log)
    return [(int(some), int(all_)) for some, all_ in found]


def accepted(server: Server, messages: list[dict[str, str]]) -> tuple[str, float]:
    """The answer, and which part of what was drafted for it was accepted."""
    body: dict[str, Any] = {"messages": messages, **GREEDY}
    answer = server.post("/v1/chat/completions", body).json()
    timings = answer["timings"]
    return answer["choices"][0]["message"]["content"], timings["draft_n_accepted"] / timings["draft_n"]


def test_chat_goes_on_after_kill_9(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), *DRAFT])
    assert "problem" not in memory_status(server)
    told = Conversation(1)
    first = told.ask(server)
    flush(server)
    server.kill()
    server.start()
    answer = accepted(server, told.asking(ASK_CITY))
    ((some, every),) = restored(server)
    assert some == every >= 0.9 * first.total
    warm, plain = Conversation(1), Conversation(1)
    stock = start_server([*ONE_THREAD, *DRAFT], binary=STOCK_BINARY)
    assert warm.ask(stock).text == first.text
    assert accepted(stock, warm.asking(ASK_CITY)) == answer
    without = start_server([*ONE_THREAD], binary=STOCK_BINARY)
    assert plain.ask(without).text == first.text
    assert plain.ask(without, ASK_CITY).text == answer[0]


def test_delete_takes_the_draft_along(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), *DRAFT])
    Conversation(1).ask(server, atlas={"session_id": "ada"})
    flush(server)
    session = server.post("/v1/atlas/memory/list", {}).json()["data"]["contexts"]
    assert [each["context_id"] for each in session] == ["ada"]
    kept = sum(path.stat().st_size for path in block_files(tmp_path))
    assert session[0]["session"]["disk_bytes"] == kept
    server.kill()
    server.start()
    freed = server.post("/v1/atlas/memory/delete", {"context_id": "ada"}).json()["data"]["freed_bytes"]
    assert freed >= kept
    server.wait_until(lambda: not block_files(tmp_path))


def test_drafts_share_the_budget(start_server: StartServer, tmp_path: Path) -> None:
    """Conversations are given up as ever, and what is left goes on."""
    options = memory_options(tmp_path)
    server = start_server([*options, *DRAFT, "--atlas-l1-cache-size", "3000000"])
    told = [Conversation(number) for number in range(6)]
    for each in told:
        each.ask(server, ASK_NAME)
        assert memory_status(server)["ram"]["bytes"] <= 3_000_000
    assert memory_status(server)["ram"]["evicted"] > 0
    answer, rate = accepted(server, told[-1].asking(ASK_CITY))
    assert answer
    assert rate > 0


def test_goes_on_after_the_server_slept(start_server: StartServer, tmp_path: Path) -> None:
    """Its contexts are other objects then."""
    server = start_server([*memory_options(tmp_path), *DRAFT, "--sleep-idle-seconds", "1"])
    told, same = Conversation(1), Conversation(1)
    first = told.ask(server)
    server.wait_until(lambda: server.get("/props").json()["is_sleeping"])
    answer = accepted(server, told.asking(ASK_CITY))
    ((some, every),) = restored(server)
    assert some == every >= 0.9 * first.total
    stock = start_server([*ONE_THREAD, *DRAFT], binary=STOCK_BINARY)
    same.ask(stock)
    assert accepted(stock, same.asking(ASK_CITY)) == answer
