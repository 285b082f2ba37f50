"""Where copying a block of state takes long, nobody waits for it: neither a stream nor the next request."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import NO_PRELOADING, flush, kill_and_start, memory_options
from tests.server.harness import Server
from tests.server.preloading import SlowBatches, SlowCopies

BLOCK = 16
PROMPT = [5 + number * 7 % 90 for number in range(200)]
OTHER = [5 + number * 11 % 90 for number in range(200)]
N_ANSWER = 200
N_BLOCKS = (len(PROMPT) + N_ANSWER) // BLOCK
COPY_MS = 200
OPTIONS = [*NO_PRELOADING, "--atlas-block-tokens", str(BLOCK)]


@pytest.fixture
def copies(tmp_path: Path) -> SlowCopies:
    return SlowCopies(tmp_path, COPY_MS)


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path, copies: SlowCopies) -> Server:
    return start_server([*memory_options(tmp_path), *OPTIONS], copies.environment)


def complete(server: Server, prompt: Sequence[int], n_predict: int = N_ANSWER) -> dict[str, Any]:
    body = {"prompt": prompt, "n_predict": n_predict, "temperature": 0, "ignore_eos": True}
    answer: dict[str, Any] = server.post("/completion", body | {"return_tokens": True}).json()
    assert len(answer["tokens"]) == n_predict
    return answer


def assert_is_kept(server: Server, copies: SlowCopies, told: list[int]) -> None:
    copies.set(0)
    flush(server)
    kill_and_start(server)
    assert complete(server, [*told, 7], 1)["timings"]["cache_n"] >= len(told) - 1


def test_a_stream_does_not_wait(server: Server, copies: SlowCopies) -> None:
    answer = complete(server, PROMPT)
    assert 1 <= copies.count() <= 3  # one tells how long it takes
    server.wait_until(lambda: copies.count() >= N_BLOCKS)  # as nothing generates
    assert_is_kept(server, copies, PROMPT + answer["tokens"])


def test_a_request_does_not_wait(server: Server, copies: SlowCopies) -> None:
    answer = complete(server, PROMPT)
    server.wait_until(lambda: copies.count() >= 3)
    complete(server, OTHER, 1)
    assert copies.count() < N_BLOCKS
    assert_is_kept(server, copies, PROMPT + answer["tokens"])


def test_the_next_turn_does_not_wait(start_server: StartServer, copies: SlowCopies, tmp_path: Path) -> None:
    batches = SlowBatches(tmp_path, 2000)  # so that copying is worth it
    libraries = [slow.environment["LD_PRELOAD"] for slow in (copies, batches)]
    server = start_server([*memory_options(tmp_path), *OPTIONS], {"LD_PRELOAD": ":".join(libraries)})
    answer = complete(server, PROMPT, 2)
    batches.set(0)
    told = [*PROMPT, *answer["tokens"]]
    again = complete(server, [*told, 8, 9], 1)
    assert again["timings"]["cache_n"] >= len(told) - 1
    assert copies.count() < len(told) // BLOCK
    assert_is_kept(server, copies, told)


def test_what_is_sooner_computed_is_not_copied(server: Server, copies: SlowCopies) -> None:
    complete(server, PROMPT, 1)  # how long a token takes is known from now on
    flush(server)
    n_copies = copies.count()
    complete(server, OTHER, 1)
    flush(server)
    assert copies.count() == n_copies
    kill_and_start(server)
    assert complete(server, OTHER, 1)["timings"]["cache_n"] == 0
    assert complete(server, PROMPT, 1)["timings"]["cache_n"] >= len(PROMPT) - 1
