"""Clients that leave before their answer: it is noticed, whatever else is answered; their slot is free."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.completions import Leaving
from tests.server.conftest import StartServer
from tests.server.conversations import ONE_THREAD, REUSED
from tests.server.harness import MODEL, Server
from tests.server.preloading import SlowBatches

# A batch takes as long at least: what is computed after a client has left says how long nobody noticed.
BATCH_MS = 100
BATCHES_IN_2_S = 2000 // BATCH_MS
BATCH_TOKENS = 32
OPTIONS = [*ONE_THREAD, "-np", "1", "-b", f"{BATCH_TOKENS}", "-ub", f"{BATCH_TOKENS}"]
LONG_PROMPT = [100 + number % 500 for number in range(1800)]


@pytest.fixture
def slow(start_server: StartServer, tmp_path: Path) -> Iterator[Server]:
    """One slot, where a batch takes BATCH_MS."""
    batches = SlowBatches(tmp_path, BATCH_MS)
    yield start_server([*OPTIONS, "--atlas-memory-path", tmp_path / "memory"], batches.environment)
    batches.set(0)


def slot(server: Server) -> Any:
    """What GET /slots says of the only one; asking is a result that flows meanwhile."""
    return server.get("/slots").json()[0]


def computed(server: Server) -> int:
    """Tokens of the prompt and the answer that the slot's task has computed; 0: it has none."""
    shown = slot(server)
    count: int = shown["n_prompt_tokens_processed"] + shown["next_token"][0]["n_decoded"]
    return count if shown["is_processing"] else 0


def computed_until_idle(server: Server) -> int:
    """The same at the last look before the task ended."""
    last = 0

    def is_idle() -> bool:
        nonlocal last
        count = computed(server)
        last = count or last
        return count == 0

    server.wait_until(is_idle)
    return last


def is_in_prefill(server: Server) -> bool:
    shown = slot(server)
    return bool(shown["is_processing"] and shown["n_prompt_tokens_processed"] > 0)


def is_generating(server: Server) -> bool:
    shown = slot(server)
    return bool(shown["is_processing"] and shown["next_token"][0]["n_decoded"] > 1)


PREFILL = ({"prompt": LONG_PROMPT, "n_predict": 4}, is_in_prefill, BATCH_TOKENS)
GENERATION = ({"prompt": "Once", "n_predict": 100, "ignore_eos": True}, is_generating, 1)


# Streams with the header go on: tests/server/test_conversation_streams.py.
@pytest.mark.parametrize(
    ("phase", "stream", "headers"),
    [
        (PREFILL, False, ""),
        (PREFILL, True, ""),
        (PREFILL, False, "X-Conversation-Id: c\r\n"),
        (GENERATION, False, ""),
        (GENERATION, True, ""),
        (GENERATION, False, "X-Conversation-Id: c\r\n"),
    ],
)
def test_while_others_are_answered(
    slow: Server, phase: tuple[dict[str, Any], Callable[[Server], bool], int], stream: bool, headers: str
) -> None:
    body, is_begun, tokens_a_batch = phase
    client = Leaving(slow, {**body, "stream": stream}, headers)
    slow.wait_until(lambda: is_begun(slow))
    before = computed(slow)
    client.leave()
    assert computed_until_idle(slow) - before <= BATCHES_IN_2_S * tokens_a_batch


def test_what_was_computed_is_kept(slow: Server) -> None:
    client = Leaving(slow, PREFILL[0])
    slow.wait_until(lambda: is_in_prefill(slow) and computed(slow) >= 300)
    client.leave()
    known = computed_until_idle(slow)
    # somebody else takes the slot, and the server starts anew
    assert slow.post("/completion", {"prompt": "Once", "n_predict": 1}).status_code == 200
    assert slow.post("/v1/atlas/memory/flush").status_code == 200
    assert slow.stop() == 0
    slow.environment.pop("LD_PRELOAD")
    slow.start()
    body = {"prompt": LONG_PROMPT[: known + 1], "n_predict": 1, "atlas": {}}
    answer = slow.post("/completion", body).json()
    assert answer["atlas"]["reused_tokens"] >= REUSED * known


def test_between_many_short_answers(slow: Server) -> None:
    """Each of them comes within a second of the one before."""
    n_prompts = 100
    client = Leaving(slow, {"prompt": [f"Item {number}" for number in range(n_prompts)], "n_predict": 1})
    slow.wait_until(lambda: slot(slow)["is_processing"])
    first = slot(slow)["id_task"]
    client.leave()
    slow.wait_until(lambda: not slot(slow)["is_processing"])
    assert slot(slow)["id_task"] - first <= 2 * BATCHES_IN_2_S


@pytest.mark.parametrize("behind", [b"\r\n", b"GET /health HTTP/1.1\r\n\r\n"])
def test_behind_bytes_that_nobody_reads(slow: Server, behind: bytes) -> None:
    """As a TLS session ends, too: by a record."""
    client = Leaving(slow, PREFILL[0], behind=behind)
    slow.wait_until(lambda: is_in_prefill(slow))
    before = computed(slow)
    client.leave()
    assert computed_until_idle(slow) - before <= BATCHES_IN_2_S * BATCH_TOKENS


@pytest.mark.parametrize("stream", [False, True])
def test_through_a_router(start_server: StartServer, tmp_path: Path, stream: bool) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/one.gguf").write_bytes(MODEL.read_bytes())
    batches = SlowBatches(tmp_path, 0)
    router = start_server([*OPTIONS, "--models-dir", tmp_path / "models"], batches.environment, model=None)
    assert router.post("/completion", {"model": "one", "prompt": "Once", "n_predict": 1}).status_code == 200
    batches.set(BATCH_MS)

    def computed() -> int:
        shown = router.get("/slots?model=one").json()[0]
        return int(shown["n_prompt_tokens_processed"]) if shown["is_processing"] else 0

    client = Leaving(router, {**PREFILL[0], "model": "one", "stream": stream})
    router.wait_until(lambda: computed() > 0)
    client.leave()
    last = [0]

    def is_idle() -> bool:
        last.append(computed())
        return last[-1] == 0

    router.wait_until(is_idle)
    assert max(last) < len(LONG_PROMPT) - BATCH_TOKENS
