"""Names of people, pets and places, most of them made up, so that a model must copy and cannot know them.

A tenth of all names, told by a checksum, and all of ORDINARY never occur in training: evaluation uses those.
"""

import random
import zlib

from demo_model.words import words

CONSONANTS = "bdfghjklmnprstvz"
VOWELS = "aeiou"

ONSETS = words("onsets")
NUCLEI = words("nuclei")
CODAS = words("codas")
ENDINGS = words("endings")
ACCENTED = "áàâäãåçéèêëíîïñóôöøõúüýčšžłń"

PEOPLE = words("people")
PLACES = words("places")
PET_NAMES = words("pet-names")

ORDINARY = words("ordinary-names")
_ORDINARY = frozenset(ORDINARY)


def is_held_out(name: str) -> bool:
    """Whether a name is kept for evaluation."""
    return name in _ORDINARY or zlib.crc32(name.lower().encode()) % 10 == 0


def from_syllables(rng: random.Random) -> str:
    """Such as Talomi, Kerun."""
    count = rng.choice((2, 2, 2, 3, 3, 3, 4))
    name = "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(count))
    if rng.random() < 0.25:
        name += rng.choice("nrsl")
    return name.capitalize()


def from_clusters(rng: random.Random) -> str:
    """Such as Flaund, Threckander."""
    name = "" if rng.random() < 0.2 else rng.choice(ONSETS)
    for part in range(rng.choice((1, 2, 2, 2, 3))):
        if part:
            name += rng.choice(ONSETS)
        name += rng.choice(NUCLEI)
        if rng.random() < 0.4:
            name += rng.choice(CODAS)
    if rng.random() < 0.35:
        name += rng.choice(ENDINGS)
    return name.capitalize()


def from_letters(rng: random.Random) -> str:
    """Such as Xqodi."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 7))).capitalize()


def respelled(rng: random.Random, name: str) -> str:
    """The name with a letter exchanged, so that even known names have to be read."""
    position = rng.randint(1, max(1, len(name) - 1))
    return name[:position] + rng.choice("abcdefghijklmnopqrstuvwxyz") + name[position + rng.randint(0, 1) :]


def accented(rng: random.Random, name: str) -> str:
    """The name with an accent somewhere."""
    position = rng.randint(1, max(1, len(name) - 1))
    return name[:position] + rng.choice(ACCENTED) + name[position + 1 :]


def _single(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.36:
        return from_syllables(rng)
    if kind < 0.68:
        return from_clusters(rng)
    if kind < 0.74:
        return from_letters(rng)
    name = rng.choice(rng.choice((PEOPLE, PEOPLE, PLACES, PET_NAMES)))
    return respelled(rng, name) if rng.random() < 0.35 else name


def _compound(rng: random.Random) -> str:
    name = _single(rng)
    kind = rng.random()
    if kind < 0.06:
        return f"{name}-{_single(rng)}"
    if kind < 0.09:
        return rng.choice(("O'", "D'", "Mc", "Mac", "De", "L'")) + name
    if kind < 0.13:
        return f"{name} {_single(rng)}"
    if kind < 0.16:
        return f"{rng.choice(('New', 'San', 'Saint', 'Port', 'El', 'La', 'North', 'Santa'))} {name}"
    if kind < 0.19:
        return accented(rng, name)
    return name


def sample(rng: random.Random, held_out: bool = False) -> str:
    """A name for training, or one that training never sees."""
    while True:
        name = _compound(rng)
        if len(name) > 1 and is_held_out(name) == held_out:
            return name.lower() if rng.random() < 0.04 else name
