"""Conversations that survive kill -9 where tokens are drafted, and most of them taken back."""

from pathlib import Path
from typing import Any

import pytest

from tests.archs.conftest import FEW_MODELS, FEW_REUSED, wants_all
from tests.archs.test_archs import (
    REUSED,
    SERVER,
    TOLERANCE_OF_BATCHES,
    Conversation,
    difference,
    most_likely,
)
from tests.server.conversations import NO_PRELOADING, flush
from tests.server.harness import STOCK_BINARY, Server

SIMPLE = ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "2", "--spec-ngram-simple-size-m", "4"]
SPECULATIONS = {
    "ngram-simple": SIMPLE,
    "ngram-map-k": [
        *SIMPLE[:1],
        "ngram-map-k",
        *("--spec-ngram-map-k-size-n", "2", "--spec-ngram-map-k-size-m", "4"),
    ],
    "ngram-map-k4v": [
        *SIMPLE[:1],
        "ngram-map-k4v",
        *("--spec-ngram-map-k4v-size-n", "2", "--spec-ngram-map-k4v-size-m", "4"),
    ],
    "ngram-mod": [
        *SIMPLE[:1],
        "ngram-mod",
        *("--spec-ngram-mod-n-match", "2", "--spec-ngram-mod-n-min", "1", "--spec-ngram-mod-n-max", "4"),
    ],
    "ngram-cache": [*SIMPLE[:1], "ngram-cache"],
}
# What the prompt says again and again, so that what follows is drafted. Random models take some drafts and
# refuse others.
PHRASE = [7, 8, 9, 10, 11, 12]
N_ANSWER = 24


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "speculation" in metafunc.fixturenames:
        everything = wants_all(metafunc.config)
        pairs = [(name, "ngram-simple") for name in (FEW_MODELS if everything else FEW_REUSED)]
        pairs += [("llama-dense", kind) for kind in SPECULATIONS]
        metafunc.parametrize(("name", "speculation"), pairs)


def ask(server: Server, prompt: list[int], **fields: Any) -> dict[str, Any]:
    body = {"prompt": prompt, "temperature": 0, "ignore_eos": True, "return_tokens": True, "atlas": {}}
    answer: dict[str, Any] = server.post("/completion", body | fields).json()
    assert "tokens" in answer, answer
    return answer


def restart(server: Server) -> None:
    flush(server)
    server.kill()
    server.start()


def test_goes_on_after_kill_9(name: str, speculation: str, models: Path, tmp_path: Path) -> None:
    model = models / f"{name}.gguf"
    memory: list[str | Path] = ["--atlas-memory-path", tmp_path / "memory", *NO_PRELOADING]
    memory += ["--atlas-block-tokens", "32"]
    options = [*SERVER, *SPECULATIONS[speculation]]
    said = [*Conversation().prompt[:100], *PHRASE * 4]
    drafted = {"n_predict": N_ANSWER, "logit_bias": [[token, 8] for token in PHRASE]}
    with Server([*options, *memory], directory=tmp_path, model=model) as server:
        assert "problem" not in server.get("/v1/atlas/status").json()["data"]["memory"]
        first = ask(server, said, **drafted)
        restart(server)
        said = [*said, *first["tokens"], *PHRASE]
        resumed = ask(server, said, **drafted)
        assert resumed["atlas"]["layer"] == 2
        assert resumed["timings"]["cache_n"] >= REUSED * (len(said) - len(PHRASE) - 1)
        assert resumed["timings"]["draft_n"] > 0
        # And what was drafted in between is not in what was kept.
        restart(server)
        said = [*said, *resumed["tokens"], 5]
        last = ask(server, said, n_predict=1, n_probs=10)
        assert last["timings"]["cache_n"] >= REUSED * (len(said) - 2)
    with Server(SERVER, directory=tmp_path, model=model, binary=STOCK_BINARY) as stock:
        expected = ask(stock, said, n_predict=1, n_probs=10)
    assert expected["timings"]["cache_n"] == 0
    assert difference(most_likely(last)[0], most_likely(expected)[0]) <= TOLERANCE_OF_BATCHES
