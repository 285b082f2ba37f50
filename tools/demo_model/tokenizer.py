"""Byte-level BPE as in GPT-2, whose merges are made so that names fall into few pieces that recur.

First consonant and vowel in lower case, capitalised, and capitalised after a space; then accented letters;
then what is most frequent in the dialogues without their names (Sennrich et al., 2016). llama.cpp reads it as
tokenizer model "gpt2", pre-tokenizer "gpt-2".
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from demo_model.dialogues import Turn, Writer
from demo_model.facts import COLOURS, FOODS, JOBS, PETS
from demo_model.names import ACCENTED, CONSONANTS, VOWELS

SPECIAL_TOKENS = ("<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>")
BEGIN, END, USER, ASSISTANT, SYSTEM, PADDING = range(len(SPECIAL_TOKENS))
ROLE_TOKENS = {"user": USER, "assistant": ASSISTANT, "system": SYSTEM}
VOCABULARY_SIZE = 1280

# GPT-2's own, where \p{L} and \p{N} are spelled as the re module has them.
_WORDS = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+",
)
_SAMPLED_DIALOGUES = 3000
_LEAST_PAIRS = 20
_WEIGHT_OF_VALUES = 1000
_CACHED_WORDS = 400_000


def _byte_characters() -> dict[int, str]:
    """GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in characters:
            characters[byte] = chr(256 + len(characters) - len(printable))
    return characters


_CHARACTERS = _byte_characters()
_BYTES = {character: byte for byte, character in _CHARACTERS.items()}


def _spelled(text: str) -> str:
    return "".join(_CHARACTERS[byte] for byte in text.encode())


class Tokenizer:
    """Text to token numbers and back. `merges` are pairs of pieces, the most important first."""

    def __init__(self, merges: Iterable[tuple[str, str]]) -> None:
        self.merges = list(merges)
        self.tokens = [*SPECIAL_TOKENS, *_CHARACTERS.values(), *(a + b for a, b in self.merges)]
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._numbers = {token: number for number, token in enumerate(self.tokens)}
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def from_gguf(cls, path: Path) -> "Tokenizer":
        """That of a model file. Raises ValueError where it is not one of this kind."""
        from gguf import GGUFReader

        reader = GGUFReader(path)
        merges = reader.get_field("tokenizer.ggml.merges")
        tokens = reader.get_field("tokenizer.ggml.tokens")
        if merges is None or tokens is None:
            raise ValueError(f"{path} has no merges: it is no model of tools/demo_model")
        pairs = (str(merge).split(" ") for merge in merges.contents())
        tokenizer = cls((first, second) for first, second in pairs)
        if tokenizer.tokens != tokens.contents():
            raise ValueError(f"{path} has other tokens than tools/demo_model makes: train the model anew")
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """The tokens of a text without special ones."""
        numbers: list[int] = []
        for word in _WORDS.findall(text):
            cached = self._cache.get(word)
            if cached is None:
                cached = [self._numbers[piece] for piece in merged(list(_spelled(word)), self._ranks)]
                if len(self._cache) < _CACHED_WORDS:
                    self._cache[word] = cached
            numbers += cached
        return numbers

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.encode(text))

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of tokens; special ones by their names."""
        text = bytearray()
        for number in numbers:
            token = self.tokens[number]
            text += token.encode() if number < len(SPECIAL_TOKENS) else bytes(_BYTES[c] for c in token)
        return text.decode("utf-8", "replace")

    def render(self, turns: Iterable[Turn]) -> tuple[list[int], list[Turn | None]]:
        """A dialogue as the chat template renders it, and for each token the answer that it is part of."""
        numbers, answers = [BEGIN], list[Turn | None]([None])
        for turn in turns:
            text = self.encode(turn.text)
            numbers += [ROLE_TOKENS[turn.role], *text, END]
            answers += [None, *([turn if turn.role == "assistant" else None] * (len(text) + 1))]
        return numbers, answers


def merged(pieces: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Merge neighbours, the best pair first, until no pair of `ranks` is left."""
    while len(pieces) > 1:
        pairs = [ranks.get(pair, len(ranks)) for pair in pairwise(pieces)]
        best = min(pairs)
        if best == len(ranks):
            break
        at = pairs.index(best)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces


def _syllables() -> list[tuple[str, str]]:
    space = _CHARACTERS[ord(" ")]
    capitals = [chr(letter) for letter in range(ord("A"), ord("Z") + 1)]
    return [
        *((c, v) for c in CONSONANTS for v in VOWELS),
        *((c.upper(), v) for c in CONSONANTS for v in VOWELS),
        *((space, c.upper() + v) for c in CONSONANTS for v in VOWELS),
        *((space, capital) for capital in capitals),
        *((spelled[0], spelled[1]) for spelled in map(_spelled, ACCENTED)),
    ]


def _words_without_names(dialogues: int) -> Counter[str]:
    writer = Writer(random.Random(1), name=lambda: "")
    words: Counter[str] = Counter()
    for _ in range(dialogues):
        for turn in writer.dialogue(600, count=lambda text: len(text) // 4, distant=0.2):
            words.update(
                word for word in _WORDS.findall(turn.text) if word.strip() and not word.strip().isdigit()
            )
    # What is told should be one token, where it can be.
    words.update({f" {value}": _WEIGHT_OF_VALUES for value in (*COLOURS, *PETS, *FOODS, *JOBS)})
    return words


def build(size: int = VOCABULARY_SIZE, dialogues: int = _SAMPLED_DIALOGUES) -> Tokenizer:
    """The tokenizer of `size` tokens, always the same."""
    merges = _syllables()
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    known = {first + second for first, second in merges}
    # The frequency of the commonest words would drown the rest.
    words = [
        (merged(list(_spelled(word)), ranks), min(count, 2000))
        for word, count in sorted(_words_without_names(dialogues).items())
    ]
    while len(SPECIAL_TOKENS) + len(_CHARACTERS) + len(merges) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for pieces, count in words:
            for pair in pairwise(pieces):
                pairs[pair] += count
        candidates = ((count, pair) for pair, count in pairs.items() if pair[0] + pair[1] not in known)
        count, best = max(candidates, default=(0, ("", "")))
        if count < _LEAST_PAIRS:
            break
        merges.append(best)
        known.add(best[0] + best[1])
        for pieces, _ in words:
            _merge_pair(pieces, best)
    return Tokenizer(merges)


def _merge_pair(pieces: list[str], pair: Sequence[str]) -> None:
    at = 0
    while at < len(pieces) - 1:
        if pieces[at] == pair[0] and pieces[at + 1] == pair[1]:
            pieces[at : at + 2] = [pair[0] + pair[1]]
        at += 1
