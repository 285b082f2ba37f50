"""State that was computed under one size of the context, or number of slots, goes on under another."""

from pathlib import Path

import pytest

from tests.archs.conftest import FEW_MODELS, FEW_REUSED, wants_all
from tests.archs.test_archs import (
    PROMPT_TOKENS,
    REUSED,
    SERVER,
    TOLERANCE_OF_BATCHES,
    Conversation,
    ask,
    distance,
)
from tests.server.conversations import NO_PRELOADING, flush
from tests.server.harness import STOCK_BINARY, Server

# What cannot be cut depends on it.
WHOLE_ONLY = {"deepseek4-moe"}
OTHER_CONTEXT = ["-c", "6144"]  # of two slots, where the first server has 4096
OTHER_BATCHES = ["-b", "64", "-ub", "32"]
# Two slots of a KV cache each become these.
OTHER_SETTINGS = {
    "context and batches": [*OTHER_CONTEXT, *OTHER_BATCHES],
    "one slot": ["-np", "1"],
    "four slots": ["-np", "4", "-c", "8192"],
    "one cache": ["-kvu"],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = FEW_MODELS if wants_all(metafunc.config) else [*FEW_REUSED, "llama-dense"]
    metafunc.parametrize("name", names)


@pytest.mark.parametrize("other", OTHER_SETTINGS)
def test_goes_on(name: str, other: str, models: Path, tmp_path: Path) -> None:
    model = models / f"{name}.gguf"
    memory: list[str | Path] = ["--atlas-memory-path", tmp_path / "memory", *NO_PRELOADING]
    memory += ["--atlas-block-tokens", "64"]
    conversation = Conversation()
    with Server([*SERVER, *memory], directory=tmp_path, model=model) as server:
        answer = ask(server, conversation.prompt)
        flush(server)
    appended = conversation.appended(answer)
    changed = [*SERVER, *OTHER_SETTINGS[other]]
    with Server([*changed, *memory], directory=tmp_path, model=model) as server:
        resumed = ask(server, appended)
    if name in WHOLE_ONLY:
        assert resumed["timings"]["cache_n"] == 0
        return
    assert resumed["timings"]["cache_n"] >= REUSED * PROMPT_TOKENS
    with Server(changed, directory=tmp_path, model=model, binary=STOCK_BINARY) as stock:
        assert distance(resumed, ask(stock, appended)) <= TOLERANCE_OF_BATCHES
