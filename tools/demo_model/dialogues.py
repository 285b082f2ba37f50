"""Puts dialogues together: for training, and for evaluation at a given distance."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from demo_model import names, small_talk
from demo_model.facts import (
    ACKNOWLEDGED,
    ALL_ACKNOWLEDGED,
    COLOURS,
    FACTS,
    FOODS,
    JOBS,
    NOTHING_KNOWN,
    PETS,
    SUMMARY_QUESTIONS,
)
from demo_model.small_talk import capitalised, casual, lowered

Role = Literal["system", "user", "assistant"]
TokenCount = Callable[[str], int]

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a polite and friendly assistant.",
    "Answer briefly.",
    "You are a small chat model.",
)
GREETINGS = ("Hello, ", "Hello, ", "Hi, ", "Hi! ", "Hello! ", "Hey, ", "By the way, ", "Good morning! ")
QUESTION_OPENINGS = (
    "So, ",
    "Hello again! ",
    "Hi, it is me again. ",
    "Tell me, ",
    "Hey, ",
    "And ",
    "Now, ",
    "Hi! ",
)
# Tokens of a message beside its text: its role, and its end.
MESSAGE_TOKENS = 2


class Turn(NamedTuple):
    """A message. `recalls` is true of answers that need what was told before."""

    role: Role
    text: str
    recalls: bool = False


@dataclass
class Told:
    """What the user of a dialogue has told so far."""

    values: dict[str, str] = field(default_factory=dict)
    kind: str = ""

    def answer(self, key: str) -> str:
        """The right answer to a question for a fact."""
        fact = FACTS[key]
        if key not in self.values:
            return fact.unknown
        return fact.answer.format(value=self.values[key])

    def summary(self) -> str:
        """The right answer to what is known about the user: every fact told, in the order of FACTS."""
        return " ".join(self.answer(key) for key in FACTS if key in self.values) or NOTHING_KNOWN

    def copy(self) -> "Told":
        """The same, independent."""
        return Told(dict(self.values), self.kind)


class Writer:
    """Writes dialogues from one source of randomness. Not thread-safe."""

    def __init__(self, rng: random.Random, name: Callable[[], str] | None = None) -> None:
        self.rng = rng
        self.name = name or (lambda: names.sample(rng))

    def value(self, key: str) -> str:
        """A new value for a fact."""
        rng = self.rng
        if key == "number":
            return str(
                rng.choice(
                    (rng.randint(1, 9), rng.randint(10, 99), rng.randint(10, 99), rng.randint(100, 999))
                )
            )
        known = {"colour": COLOURS, "food": FOODS, "job": JOBS}.get(key)
        return rng.choice(known) if known else self.name()

    def statement(self, told: Told, key: str) -> str:
        """Tell a fact, or correct it."""
        rng, fact = self.rng, FACTS[key]
        texts = fact.corrections if key in told.values else fact.statements
        told.values[key] = self.value(key)
        if key == "pet":
            told.kind = rng.choice(PETS)
        # only the text around the value is typed carelessly
        text = casual(rng, rng.choice(texts)) if rng.random() < 0.7 else rng.choice(texts)
        return text.format(value=told.values[key], kind=told.kind)

    def acknowledgement(self, told: Told, key: str) -> str:
        """What is answered to a fact."""
        if self.rng.random() > 0.6:
            return ACKNOWLEDGED
        text = self.rng.choice(FACTS[key].acknowledgements)
        return capitalised(text.format(value=told.values[key], kind=told.kind))

    def telling(self, told: Told) -> tuple[Turn, Turn]:
        """A message with one to three facts, and the answer."""
        rng = self.rng
        untold = [key for key in FACTS if key not in told.values]
        if told.values and (not untold or rng.random() < 0.08):
            key = rng.choice(list(told.values))
            return Turn("user", self.statement(told, key)), Turn("assistant", self.acknowledgement(told, key))
        keys = rng.sample(untold, min(rng.choice((1, 1, 1, 1, 2, 2, 3)), len(untold)))
        if "name" in keys:
            keys.remove("name")
            keys.insert(0, "name")
        parts = [self.statement(told, key) for key in keys]
        if len(keys) == 1:
            answer = self.acknowledgement(told, keys[0])
        elif "name" in keys and rng.random() < 0.6:
            answer = f"Nice to meet you, {told.values['name']}!"
        else:
            answer = ALL_ACKNOWLEDGED
        if len(parts) == 2 and rng.random() < 0.5 and parts[0].endswith("."):
            second = parts[1] if parts[1].startswith("I") else lowered(parts[1])
            parts = [f"{parts[0][:-1]} and {second}"]
        text = " ".join(parts)
        if rng.random() < 0.25:
            greeting = rng.choice(GREETINGS)
            if greeting.endswith(", ") and not text.startswith("I"):
                text = lowered(text)
            text = greeting + text
        extra = rng.random()
        if extra < 0.08:
            text += " " + small_talk.sentence(rng, self.name)
        elif extra < 0.13:
            text = small_talk.sentence(rng, self.name) + " " + text
        elif extra < 0.19:
            question, answer = self.question(told, keys[0]), told.answer(keys[0])
            return Turn("user", f"{text} {question}"), Turn("assistant", answer, recalls=True)
        return Turn("user", text), Turn("assistant", answer)

    def question(self, told: Told, key: str) -> str:
        """Ask for a fact, told or not."""
        rng, fact = self.rng, FACTS[key]
        texts = fact.questions
        kind = told.kind if key in told.values else rng.choice(PETS)
        if fact.questions_with_kind and rng.random() < 0.35:
            texts = fact.questions_with_kind
        text = rng.choice(texts).format(kind=kind)
        if rng.random() < 0.15:
            opening = rng.choice(QUESTION_OPENINGS)
            text = opening + (
                text if opening.endswith(("! ", ". ")) or text.startswith("I ") else lowered(text)
            )
        return casual(rng, text)

    def asking(self, told: Told) -> tuple[Turn, Turn]:
        """A question for one or two facts, or all, and the right answer."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.12:
            question = casual(rng, rng.choice(SUMMARY_QUESTIONS))
            return Turn("user", question), Turn("assistant", told.summary(), recalls=True)
        known = list(told.values)
        unknown = [key for key in FACTS if key not in told.values]
        pool = known if known and (not unknown or rng.random() < 0.75) else unknown
        key = rng.choice(pool)
        question, answer = self.question(told, key), told.answer(key)
        if kind < 0.22:
            other = rng.choice(
                [each for each in (known if rng.random() < 0.75 else FACTS) if each != key] or ["name"]
            )
            if other != key:
                second = self.question(told, other)
                joined = question.endswith("?") and second.startswith(("What", "Where", "Which", "Who"))
                if joined and rng.random() < 0.5:
                    question = f"{question[:-1]} and {lowered(second)}"
                else:
                    question = f"{question} {second}"
                answer = f"{answer} {told.answer(other)}"
        return Turn("user", question), Turn("assistant", answer, recalls=True)

    def distraction(self, room: int = 400) -> tuple[Turn, Turn]:
        """What need not be remembered."""
        said, answer = small_talk.distraction(self.rng, self.name, room)
        return Turn("user", said), Turn("assistant", answer)

    def dialogue(self, length: int, count: TokenCount, distant: float) -> list[Turn]:
        """Turns of at most `length` tokens; a share `distant` of dialogues asks at its end."""
        draft = _Draft(length, count)
        rng = self.rng
        if rng.random() < 0.2:
            draft.system(rng.choice(SYSTEM_PROMPTS))
        told = Told()
        if rng.random() < distant:
            self._distant(draft, told, length)
        else:
            self._mixed(draft, told)
        return draft.turns

    def _tell(self, draft: "_Draft", told: Told) -> bool:
        after = told.copy()
        if not draft.add(self.telling(after)):
            return False
        told.values, told.kind = after.values, after.kind
        return True

    def _distant(self, draft: "_Draft", told: Told, length: int) -> None:
        rng = self.rng
        if rng.random() < 0.3:
            draft.add(self.distraction(60))
        for _ in range(rng.randint(1, 4)):
            if not self._tell(draft, told):
                break
            if rng.random() < 0.4 and draft.used < length * 0.4:
                draft.add(self.distraction(60))
        end = length - rng.randint(1, 12) * 22
        while draft.used < end and draft.add(self.distraction(end - draft.used)):
            pass
        self._until_full(lambda: draft.add(self.asking(told)))

    def _mixed(self, draft: "_Draft", told: Told) -> None:
        rng = self.rng
        telling, asking = rng.uniform(0.05, 0.4), rng.uniform(0.15, 0.6)

        def anything() -> bool:
            kind = rng.random()
            if kind < telling and len(told.values) < len(FACTS):
                return self._tell(draft, told)
            return draft.add(self.asking(told) if kind < telling + asking else self.distraction(150))

        self._until_full(anything)

    @staticmethod
    def _until_full(add: Callable[[], bool]) -> None:
        refused = 0
        while refused < 3:
            refused += not add()


class _Draft:
    """A dialogue that grows up to a number of tokens, the first of which marks its beginning."""

    def __init__(self, length: int, count: TokenCount) -> None:
        self.turns: list[Turn] = []
        self.used = 1
        self._length = length
        self._count = count

    def system(self, text: str) -> None:
        self.turns.append(Turn("system", text))
        self.used += self._count(text) + MESSAGE_TOKENS

    def add(self, turns: tuple[Turn, Turn]) -> bool:
        """Append a message and its answer, if they fit."""
        tokens = sum(self._count(turn.text) + MESSAGE_TOKENS for turn in turns)
        if self.used + tokens > self._length:
            return False
        self.used += tokens
        self.turns += turns
        return True
