"""Dialogues that training never saw, each with the one right answer to its last question."""

import random
from collections.abc import Iterable
from typing import NamedTuple

from demo_model import names
from demo_model.dialogues import MESSAGE_TOKENS, Told, Turn, Writer
from demo_model.facts import FACTS
from demo_model.tokenizer import Tokenizer

# Facts with names, which are the hard ones, come up as often as all others.
ASKED = ("name", "city", "pet", "friend", "name", "colour", "number", "job", "food")
NAMED = ("name", "city", "pet", "friend")
# The distance asked for, or this many tokens more.
_TOLERANCE = 8
_SHORTEST = 12
# Nearer facts are told last.
_ROOM_FOR_OTHER_FACTS = 200
_ATTEMPTS = 20_000


class Case(NamedTuple):
    """A dialogue that ends with the right answer.

    `distance` counts the tokens from the end of the message that tells the fact to the question.
    `told` is all that the user has said.
    """

    turns: list[Turn]
    key: str
    distance: int
    told: Told

    @property
    def answer(self) -> str:
        """The right one."""
        return self.turns[-1].text


def _facts(writer: Writer, told: Told, keys: list[str]) -> list[Turn]:
    turns = []
    for key in keys:
        turns.append(Turn("user", writer.statement(told, key)))
        turns.append(Turn("assistant", writer.acknowledgement(told, key)))
    return turns


def _length(tokens: Tokenizer, turns: Iterable[Turn]) -> int:
    return sum(tokens.count(turn.text) + MESSAGE_TOKENS for turn in turns)


def _filling(writer: Writer, tokens: Tokenizer, room: int) -> list[Turn]:
    """Turns of `room` tokens, or a few more; none where no exchange is as short."""
    turns: list[Turn] = []
    if room < _SHORTEST:
        return turns
    left = room
    for _ in range(_ATTEMPTS):
        if left <= 0:
            return turns
        exchange = writer.distraction(left)
        used = _length(tokens, exchange)
        if used < left + _TOLERANCE:
            turns += exchange
            left -= used
        elif left < _SHORTEST:
            # nothing is that short: begin again
            turns, left = [], room
    raise ValueError(f"no exchanges of {room} tokens were found")


def known_fact(tokens: Tokenizer, seed: int, distance: int, ordinary: bool = False) -> Case:
    """Two to four facts, then `distance` tokens of something else, then a question for the first told.

    Names are unseen; with `ordinary` the fact asked for is one of names.ORDINARY.
    """
    rng = random.Random(seed)
    writer = Writer(rng, name=lambda: names.sample(rng, held_out=True))
    asked = rng.choice(NAMED if ordinary else ASKED)
    others = rng.sample([key for key in FACTS if key != asked], rng.randint(1, 3))
    told = Told()
    given = [asked, *others]
    rng.shuffle(given)
    if distance < _ROOM_FOR_OTHER_FACTS:
        given.sort(key=lambda key: key == asked)
    teller = Writer(rng, name=lambda: rng.choice(names.ORDINARY)) if ordinary else writer
    turns: list[Turn] = []
    after: list[Turn] = []
    for key in given:
        statement, acknowledgement = _facts(teller if key == asked else writer, told, [key])
        turns += [statement, acknowledgement]
        if key == asked:
            after = [acknowledgement]
        elif after:
            after += [statement, acknowledgement]
    filling = _filling(writer, tokens, distance - _length(tokens, after))
    turns += filling
    turns += [Turn("user", writer.question(told, asked)), Turn("assistant", told.answer(asked), recalls=True)]
    return Case(turns, asked, _length(tokens, after + filling), told)


def unknown_fact(tokens: Tokenizer, seed: int, distance: int) -> Case:
    """Two to four facts, then a question for another."""
    rng = random.Random(seed)
    writer = Writer(rng, name=lambda: names.sample(rng, held_out=True))
    given = rng.sample(list(FACTS), rng.randint(2, 4))
    told = Told()
    turns = _facts(writer, told, given) + _filling(writer, tokens, distance)
    asked = rng.choice([key for key in FACTS if key not in given])
    turns += [Turn("user", writer.question(told, asked)), Turn("assistant", told.answer(asked), recalls=True)]
    return Case(turns, asked, distance, told)


def summary(tokens: Tokenizer, seed: int, distance: int) -> Case:
    """No fact or up to five, then the question what is known."""
    rng = random.Random(seed)
    writer = Writer(rng, name=lambda: names.sample(rng, held_out=True))
    told = Told()
    turns = _facts(writer, told, rng.sample(list(FACTS), rng.randint(0, 5))) + _filling(
        writer, tokens, distance
    )
    turns += [Turn("user", "What do you know about me?"), Turn("assistant", told.summary(), recalls=True)]
    return Case(turns, "", distance, told)
