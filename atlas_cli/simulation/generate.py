"""Synthetic loads that eviction policies are known to fail on. The same arguments give the same requests.

Each request is one document from its first block to its last, all blocks full.
"""

from collections.abc import Callable, Iterator, Mapping
from random import Random

from atlas_cli.simulation.trace import BLOCK_TOKENS

DOCUMENT_BLOCKS = 20
Requests = Iterator[tuple[list[int], int]]


def scan(requests: int, blocks: int, seed: int) -> Requests:
    """Popular documents of `blocks` blocks in all, and as many requests for documents that never return.

    The single ones come in rows of 200.
    """
    random, documents = Random(seed), _count(blocks)
    for number in range(requests):
        single = number // 200 % 2
        yield _document(documents + number if single else _popular(random, documents))


def loop(requests: int, blocks: int, seed: int) -> Requests:
    """Documents of `blocks` blocks in all, one after the other, again and again."""
    order = list(range(_count(blocks)))
    Random(seed).shuffle(order)
    for number in range(requests):
        yield _document(order[number % len(order)])


def shift(requests: int, blocks: int, seed: int) -> Requests:
    """Documents of `blocks` blocks in all, a few of them popular; others from every tenth of the time on."""
    random, documents = Random(seed), _count(blocks)
    order = list(range(documents))
    for number in range(requests):
        if number % max(requests // 10, 1) == 0:
            random.shuffle(order)
        yield _document(order[_popular(random, documents)])


LOADS: Mapping[str, Callable[[int, int, int], Requests]] = {"scan": scan, "loop": loop, "shift": shift}


def _count(blocks: int) -> int:
    return max(blocks // DOCUMENT_BLOCKS, 1)


def _popular(random: Random, documents: int) -> int:
    """A document; the chance of the n-th is about as 1/n."""
    return int(documents ** random.random()) - 1


def _document(number: int) -> tuple[list[int], int]:
    start = number * DOCUMENT_BLOCKS
    return list(range(start, start + DOCUMENT_BLOCKS)), DOCUMENT_BLOCKS * BLOCK_TOKENS
