"""Prompts made at random. A sentence is about 15 tokens of the demo model, and less of larger ones."""

from random import Random

_COLOURS = ("red", "blue", "green", "white", "black", "yellow", "brown", "grey")
_THINGS = ("boat", "lamp", "door", "house", "river", "table", "garden", "letter", "bridge", "window")
_PLACES = ("Paris", "Lima", "Oslo", "Rome", "Cairo", "Tokyo", "Berlin", "Madrid", "Prague", "Vienna")
_QUESTIONS = (
    "Where is the {}?",
    "What is the colour of the {}?",
    "Tell me more about the {}.",
    "Who has seen the {} before?",
    "Please describe the {} in one sentence.",
)


def sentences(source: Random, count: int) -> str:
    """So many sentences."""
    return " ".join(
        f"The {source.choice(_COLOURS)} {source.choice(_THINGS)} number {source.randrange(1000)} is in "
        f"{source.choice(_PLACES)}."
        for _ in range(count)
    )


def question(source: Random) -> str:
    """A short question."""
    return source.choice(_QUESTIONS).format(source.choice(_THINGS))


def user_message(text: str) -> dict[str, str]:
    """A message of the user."""
    return {"role": "user", "content": text}
