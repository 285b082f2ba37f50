"""What moves at the beginning of agents' prompts is named, and billing lines do not move."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.agents import (
    CHAT,
    MESSAGES,
    RESPONSES,
    SEAM,
    Json,
    answered,
    body_of,
    prompts,
    said,
    servers,
    settle,
)
from tests.server.conftest import StartServer
from tests.server.conversations import filler, memory_options
from tests.server.harness import Server

ROUTES = [MESSAGES, CHAT, RESPONSES]
HASH_LENGTHS = [1, 5, 8, 32]
TURNS = 6
AGENT = "You are Claude Code, Anthropic's official CLI for Claude."


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    ours, theirs = servers(tmp_path_factory.mktemp("agents"))
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def ours(both: tuple[Server, Server]) -> Server:
    return both[0]


@pytest.fixture
def theirs(both: tuple[Server, Server]) -> Server:
    return both[1]


@pytest.fixture
def switched_off(ours: Server) -> Iterator[Server]:
    settle(ours, is_on=False)
    yield ours
    settle(ours, is_on=True)


def billing_line(seed: int, length: int = 5, of_version: str = "e51") -> str:
    """As Claude Code begins its system prompt; the hash is another for each request."""
    cch = random.Random(seed).randbytes(16).hex()[:length]
    return f"x-anthropic-billing-header: cc_version=2.1.101.{of_version}; cc_entrypoint=cli; cch={cch};"


def text_of(route: str, answer: Json) -> str:
    if route == MESSAGES:
        return "".join(block.get("text", "") for block in answer["content"])
    if route == RESPONSES:
        return "".join(part["text"] for item in answer["output"] for part in item.get("content", []))
    text: str = answer["choices"][0]["message"]["content"]
    return text


#
# billing lines
#


@pytest.mark.parametrize("length", HASH_LENGTHS)
@pytest.mark.parametrize("route", ROUTES)
def test_reuse_grows_with_each_turn(ours: Server, route: str, length: int) -> None:
    """The line of each turn has another hash, and all of the turn before is found behind it."""
    rules = f"For {route} and {length}. {filler(30)}"
    messages: list[Json] = []
    before = 0
    for number in range(TURNS):
        messages.append(said(route, "user", f"My name is Nora, for the {number}. time. {filler(4)}"))
        system = [billing_line(number, length), AGENT, rules]
        answer = answered(ours, route, body_of(route, system, messages, atlas={}))
        atlas = answer["atlas"]
        assert atlas["reused_tokens"] >= before - (SEAM if number else 0)
        assert "moved" not in atlas
        before = atlas["prompt_tokens"]
        messages.append(said(route, "assistant", text_of(route, answer)))


def test_conversations_of_one_client_share_its_instructions(ours: Server) -> None:
    """The end of the version is a hash of the first message."""
    rules = f"For conversations. {filler(30)}"
    first = body_of(MESSAGES, [billing_line(1), AGENT, rules], [said(MESSAGES, "user", "I am Ada.")])
    answered(ours, MESSAGES, first)
    line = billing_line(2, of_version="0a7")
    other = body_of(MESSAGES, [line, AGENT, rules], [said(MESSAGES, "user", "My dog is Rex.")], atlas={})
    atlas = answered(ours, MESSAGES, other)["atlas"]
    assert atlas["reused_tokens"] > 0.9 * atlas["prompt_tokens"]


@pytest.mark.parametrize("length", HASH_LENGTHS)
@pytest.mark.parametrize("route", ROUTES)
def test_switched_off_a_prompt_is_stocks(
    switched_off: Server, theirs: Server, route: str, length: int
) -> None:
    body = body_of(route, [billing_line(7, length), AGENT], [said(route, "user", f"I am {route} {length}.")])
    for server in (switched_off, theirs):
        answered(server, route, body)
    [prompt] = [text for text in prompts(theirs) if f"I am {route} {length}." in text]
    assert prompt in prompts(switched_off)


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_no_billing_line_is_as_stock_has_it(ours: Server, theirs: Server, route: str) -> None:
    line = billing_line(3)
    system = [AGENT, f"Never say {line}", " " + line]
    body = body_of(route, system, [said(route, "user", f"{line} What is this, {route}?")])
    for server in (ours, theirs):
        answered(server, route, body)
    [prompt] = [text for text in prompts(theirs) if f"What is this, {route}?" in text]
    assert prompt in prompts(ours)


def test_a_prompt_that_is_sent_as_text_stays(ours: Server) -> None:
    text = f"{billing_line(4)} {filler(3)}"
    answered(ours, "/completion", {"prompt": text, "n_predict": 1})
    assert any(text in prompt for prompt in prompts(ours))


#
# what has moved
#

MOVERS = {
    "date": ("Today's date is 2026-11-28.", "Today's date is 2026-11-29.", "2026-11-29"),
    "time": ("It is 2026-11-29T10:11:12Z.", "It is 2026-11-29T10:13:05Z.", "2026-11-29T10:13:05Z"),
    "id": ("Request req_011CSHoEeqs5C35K.", "Request req_011CSHoEeqs8C35K.", "req_011CSHoEeqs8C35K"),
}


def ask(server: Server, system: str, question: str = "Who am I?", **atlas: Any) -> Json:
    body = body_of(CHAT, [system], [said(CHAT, "user", question)], atlas=atlas)
    found: Json = answered(server, CHAT, body)["atlas"]
    return found


def moved_of_last(server: Server) -> str:
    listed = server.get("/v1/atlas/requests").json()
    moved: str = listed["data"]["requests"][-1]["memory"]["moved"]
    return moved


@pytest.mark.parametrize("what", MOVERS)
def test_what_moves_is_named(ours: Server, what: str) -> None:
    first, second, text = MOVERS[what]
    before = f"You are careful, for {what}. {filler(5)}"
    ask(ours, f"{before} {first} {filler(30)}")
    atlas = ask(ours, f"{before} {second} {filler(30)}")
    assert atlas["reason"] == "prefix_moved"
    assert (atlas["moved"]["what"], atlas["moved"]["text"]) == (what, text)
    # where it differs, and no further, the prompt was known
    assert atlas["moved"]["token"] == atlas["reused_tokens"] < atlas["prompt_tokens"] / 2
    assert moved_of_last(ours) == what
    again = ask(ours, f"{before} {second} {filler(30)}")
    assert (again["reason"], "moved" in again, moved_of_last(ours)) == (None, False, "")


def test_a_billing_line_is_named_where_it_may_move(switched_off: Server) -> None:
    rules = f"Be named. {filler(30)}"
    for seed in (1, 2):
        messages = [said(CHAT, "user", "Who am I?")]
        body = body_of(CHAT, [billing_line(seed), AGENT, rules], messages, atlas={})
        atlas = answered(switched_off, CHAT, body)["atlas"]
    assert (atlas["reason"], atlas["moved"]["what"]) == ("prefix_moved", "billing_line")
    assert atlas["moved"]["text"].startswith("x-anthropic-billing-header:")


def test_conversations_that_only_share_a_beginning_are_not_said_to_move(ours: Server) -> None:
    rules = f"Be patient. {filler(20)}"
    ask(ours, rules, f"My name is Nora. {filler(30)}")
    atlas = ask(ours, rules, f"Where is the town of Oslo? {filler(30)}")
    assert atlas["reused_tokens"] > 0
    assert (atlas["reason"], "moved" in atlas) == (None, False)


def test_a_sessions_history_that_changed_is_named(ours: Server) -> None:
    rules = f"Be curious. {filler(20)}"
    for name in ("Nora", "Omar"):
        atlas = ask(ours, rules, f"My name is {name}. {filler(30)}", session_id="changed")
    assert (atlas["reason"], atlas["moved"]["what"]) == ("prefix_moved", "history")
    assert atlas["moved"]["text"].startswith("Omar") or "Omar" in atlas["moved"]["text"]
    assert "Nora" not in json.dumps(atlas)


def test_what_other_keys_sent_is_not_compared(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), "--api-key", "one,two"], api_key="one")
    first, second, _ = MOVERS["date"]
    seen = []
    for key, line in (("one", first), ("two", second), ("one", second)):
        body = body_of(CHAT, [f"{line} {filler(30)}"], [said(CHAT, "user", "Who?")], atlas={})
        response = server.post(CHAT, body, headers={"Authorization": f"Bearer {key}"})
        assert response.status_code == 200, response.text
        seen.append("moved" in response.json()["atlas"])
    assert seen == [False, False, True]
