"""Traces of prefix blocks in the format of Mooncake: one JSON object for each request in each line.

`hash_ids` are chained: equal ids mean equal prefixes up to and including that block, so that a block always
follows the same one. `input_length` is in tokens; the last block may be partial. Other fields are not read.
"""

import gzip
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

from atlas_plugin import json_text

BLOCK_TOKENS = 512
"""Tokens of a block in the traces that Mooncake published."""
MAX_ID = (1 << 63) - 1
_MASK = (1 << 64) - 1
_ROOT = -1


class TraceError(ValueError):
    """A trace that cannot be used; the message names file, line and field."""


class TraceRequest(NamedTuple):
    """The blocks of a prompt, root first, and its tokens."""

    keys: tuple[int, ...]
    tokens: int
    block_tokens: int = BLOCK_TOKENS

    @property
    def tail_tokens(self) -> int:
        """Tokens of the last block; `block_tokens` where it is full."""
        return self.tokens - (len(self.keys) - 1) * self.block_tokens


def key_of(block: int) -> int:
    """A uniform 64-bit key for a small number, other than 0. Equal numbers have equal keys."""
    mixed = block * 0x9E3779B97F4A7C15 & _MASK
    mixed ^= mixed >> 32
    return mixed * 0xD6E8FEB86659FD93 & _MASK or 1


def read_trace(path: Path, block_tokens: int = BLOCK_TOKENS) -> Iterator[TraceRequest]:
    """The requests of a file, which may be packed with gzip (.gz) or xz (.xz).

    Raises TraceError for a file that cannot be read, and at the first line that is wrong.
    """
    chain = _Chain()
    number, empty = 0, True
    try:
        with _open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    blocks, tokens = _parse(line, block_tokens)
                    chain.check(blocks, number)
                    empty = False
                    yield TraceRequest(tuple(map(key_of, blocks)), tokens, block_tokens)
    except _LineError as error:
        raise TraceError(f"{path}, line {number}: {error}") from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    if empty:
        raise TraceError(f"{path}: holds no requests")


def write_trace(path: Path, requests: Iterable[tuple[list[int], int]]) -> None:
    """Write requests, given by ids and tokens, in the same format. Raises OSError."""
    with _open(path, "wb") as file:
        for number, (blocks, tokens) in enumerate(requests):
            row = {"timestamp": number, "input_length": tokens, "output_length": 1, "hash_ids": blocks}
            file.write(json_text.encode(row) + b"\n")


def _open(path: Path, mode: Literal["rb", "wb"]) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, mode))
    if path.suffix == ".xz":
        return cast(IO[bytes], lzma.open(path, mode))
    return path.open(mode)


class _LineError(ValueError):
    pass


class _Chain:
    """Which block each one follows."""

    def __init__(self) -> None:
        self._parents: dict[int, tuple[int, int]] = {}

    def check(self, blocks: list[int], line: int) -> None:
        parent = _ROOT
        for block in blocks:
            known, seen = self._parents.setdefault(block, (parent, line))
            if known != parent:
                raise _LineError(
                    f"hash_ids: block {block} {_follows(parent)} here, but {_follows(known)} in line {seen}; "
                    "ids must be chained"
                )
            parent = block


def _follows(parent: int) -> str:
    return "comes first" if parent == _ROOT else f"follows {parent}"


def _parse(line: bytes, block_tokens: int) -> tuple[list[int], int]:
    try:
        row = json_text.decode(line)
    except ValueError as error:
        raise _LineError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise _LineError("must be a JSON object")
    tokens = _field(row, "input_length")
    if not _is_number(tokens, 1):
        raise _LineError("input_length: must be a whole number of at least 1")
    blocks = _field(row, "hash_ids")
    if not isinstance(blocks, list) or not all(_is_number(block, 0) for block in blocks):
        raise _LineError(f"hash_ids: must be an array of whole numbers from 0 to {MAX_ID}")
    expected = -(-tokens // block_tokens)
    if len(blocks) != expected:
        raise _LineError(
            f"hash_ids: has {len(blocks)} blocks, but input_length {tokens} makes {expected} of "
            f"{block_tokens} tokens"
        )
    if len(set(blocks)) != len(blocks):
        raise _LineError("hash_ids: names a block twice")
    return blocks, tokens


def _field(row: dict[str, Any], name: str) -> Any:
    if name not in row:
        raise _LineError(f"{name}: is missing")
    return row[name]


def _is_number(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= MAX_ID
