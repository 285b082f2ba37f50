"""Each kind of state: what one server computed another goes on from, through a directory of both."""

from pathlib import Path

import pytest

from tests.archs.conftest import FEW_MODELS
from tests.archs.test_archs import (
    ANSWER_TOKENS,
    PROMPT_TOKENS,
    SERVER,
    TOLERANCE_OF_BATCHES,
    Conversation,
    ask,
    distance,
)
from tests.server.harness import Server

REUSED = 0.95


@pytest.mark.parametrize("name", FEW_MODELS)
def test_a_conversation_goes_on_with_another_server(name: str, models: Path, tmp_path: Path) -> None:
    model = models / f"{name}.gguf"
    (tmp_path / "mount").mkdir()

    def server(own: str) -> Server:
        shared = ["--atlas-shared-url", f"file://{tmp_path}/mount", "--atlas-block-tokens", "64"]
        path: list[str | Path] = ["--atlas-memory-path", tmp_path / own]
        return Server([*SERVER, *shared, *path], directory=tmp_path, model=model)

    conversation = Conversation()
    with server("a") as first:
        answer = ask(first, conversation.prompt)
        flush = first.post("/v1/atlas/memory/flush", {"timeout_s": 60, "layer": 3})
        assert flush.status_code == 200, flush.text
    appended = conversation.appended(answer)
    with server("b") as second:
        after = ask(second, appended)
        assert after["atlas"]["layer"] == 3
        assert after["timings"]["cache_n"] >= REUSED * (PROMPT_TOKENS + ANSWER_TOKENS - 1)
        alone = ask(second, appended, cache_prompt=False)
    assert alone["timings"]["cache_n"] == 0
    assert distance(after, alone) <= TOLERANCE_OF_BATCHES
