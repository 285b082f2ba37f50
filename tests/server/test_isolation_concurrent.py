"""Concurrent sessions with secrets: each reuses what was its own, and answers as a fresh server does."""

import math
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    ASK_NAME,
    CITIES,
    COLD,
    GREEDY,
    NAMES,
    ONE_THREAD,
    Message,
    filler,
    flush,
    kill_and_start,
    memory_options,
    memory_status,
    render,
    tokenize,
)
from tests.server.harness import STOCK_BINARY, Server

ROUNDS = 20
SESSIONS = 8
CLIENTS = 6
SLOTS = 4
SEED = 20261122
SYSTEM = f"You are a helpful assistant. {filler(20)}"

# How far the probabilities of a cold prompt and of a resumed one may be apart, as the batches differ.
SAME = 0.02


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Untouched upstream, to compare with."""
    with Server(ONE_THREAD, directory=tmp_path_factory.mktemp("cold"), binary=STOCK_BINARY) as running:
        yield running


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens are equal from the start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def ask(server: Server, messages: list[Message], **fields: Any) -> Any:
    """The answer to a chat completion, with the likeliest tokens of each place."""
    body = {"messages": messages, **GREEDY, "logprobs": True, "top_logprobs": 5, **fields}
    response = server.post("/v1/chat/completions", body)
    assert response.status_code == 200, response.text
    return response.json()


def text_of(answer: Any) -> str:
    """What the model said."""
    text: str = answer["choices"][0]["message"]["content"]
    return text


def likely(place: Any) -> dict[str, float]:
    """The probabilities of the likeliest tokens of a place in an answer."""
    return {top["token"]: math.exp(top["logprob"]) for top in place["top_logprobs"]}


def is_same(answer: Any, expected: Any) -> bool:
    """Whether two greedy answers are equal in all that the model thought likely.

    From a place where two tokens were as likely they may go on apart.
    """
    places = (each["choices"][0]["logprobs"]["content"] for each in (answer, expected))
    for ours, theirs in zip(*places, strict=False):
        found, wanted = likely(ours), likely(theirs)
        # of what only one of them names it is known that it is no likelier than the last that the other names
        last, wanted_last = min(found.values()), min(wanted.values())
        for token in found.keys() | wanted.keys():
            if abs(found.get(token, last) - wanted.get(token, wanted_last)) > SAME:
                return False
        if ours["token"] != theirs["token"]:
            return True
    return text_of(answer) == text_of(expected)


@dataclass
class Session:
    """A conversation that begins with a secret, and all token sequences that it had so far."""

    number: int
    had: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name, city = NAMES[self.number], CITIES[self.number]
        # The secret comes first, so that nothing behind the system prompt is common with others.
        secret = f"{self.name} of {city} knows {random.Random(self.number).getrandbits(64):016x}."
        self.messages: list[Message] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{secret} My name is {self.name}. I live in {city}. {filler(10)}"},
            {"role": "assistant", "content": f"Nice to meet you, {self.name}!"},
        ]

    def take_turn(self, server: Server, question: str, shared: int) -> tuple[list[Message], Any]:
        """Ask, and check what was reused; the prompt and the answer."""
        prompt = [*self.messages, {"role": "user", "content": question}]
        tokens = tokenize(server, render(server, prompt))
        answer = ask(server, prompt, atlas={"session_id": f"session-{self.number}"})
        atlas = answer["atlas"]
        assert atlas["prompt_tokens"] == len(tokens)
        assert atlas["reused_tokens"] == answer["timings"]["cache_n"]
        own = max((common_prefix(tokens, earlier) for earlier in self.had), default=0)
        assert atlas["reused_tokens"] <= max(own, shared), f"session {self.number}"
        self.messages = [*prompt, {"role": "assistant", "content": text_of(answer)}]
        self.had.append(tokenize(server, render(server, self.messages)))
        return prompt, answer


def shared_prefix(server: Server, sessions: list[Session]) -> int:
    """The tokens that the prompts of any two sessions have in common: the system prompt and no secret."""
    prompts = [tokenize(server, render(server, session.messages)) for session in sessions]
    secrets = tokenize(server, render(server, sessions[0].messages[:1]))
    shared = max(common_prefix(*pair) for pair in combinations(prompts, 2))
    markup = 8
    assert len(secrets) - markup <= shared <= len(secrets) + markup
    return shared


@pytest.mark.parametrize(
    "options",
    [[], ["--atlas-l1-cache-size", "2000000", "--atlas-l2-cache-size", "4000000"], ["--kv-unified"]],
    ids=["roomy", "evicted-all-the-time", "unified"],
)
def test_secrets(start_server: StartServer, tmp_path: Path, cold: Server, options: list[str]) -> None:
    chooser = random.Random(SEED)
    server = start_server([*memory_options(tmp_path), "-np", str(SLOTS), "-c", "8192", *options])
    sessions = [Session(number) for number in range(SESSIONS)]
    shared = shared_prefix(server, sessions)
    expected: dict[str, Any] = {}

    def fresh(prompt: list[Message]) -> Any:
        key = repr(prompt)
        if key not in expected:
            expected[key] = ask(cold, prompt, **COLD)
        return expected[key]

    with ThreadPoolExecutor(CLIENTS) as clients:
        for number in range(ROUNDS):
            if number == ROUNDS // 2:
                flush(server)
                kill_and_start(server)
            order = chooser.sample(sessions, CLIENTS)
            questions = [chooser.choice([ASK_NAME, ASK_CITY]) for _ in order]
            turns = list(clients.map(lambda who, what: who.take_turn(server, what, shared), order, questions))
            for session, (prompt, answer) in zip(order, turns, strict=True):
                assert is_same(answer, fresh(prompt)), (text_of(answer), text_of(fresh(prompt)))
                others = set(NAMES[:SESSIONS]) - {session.name}
                assert not any(name in text_of(answer) for name in others)
                if len(session.messages) > 16:
                    # as long a conversation as the model was made for
                    session.messages = session.messages[:3]
    assert memory_status(server)["results"]["restored"] > 0
