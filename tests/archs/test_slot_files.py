"""What a slot file of ours puts into a slot is kept, whatever kind of state it is."""

from pathlib import Path

from tests.archs.test_archs import (
    ANSWER_TOKENS,
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


def test_kept_from_a_slot_file(reuse_model: str, models: Path, tmp_path: Path) -> None:
    model = models / f"{reuse_model}.gguf"
    files = [*SERVER, "--slot-save-path", str(tmp_path)]
    memory = [*NO_PRELOADING, "--atlas-block-tokens", "64", "--atlas-memory-path"]
    conversation = Conversation()
    with Server([*files, *memory, tmp_path / "one"], directory=tmp_path, model=model) as server:
        answer = ask(server, conversation.prompt, id_slot=0)
        server.post("/slots/0?action=save", {"filename": "a"}).raise_for_status()
    with Server([*files, *memory, tmp_path / "other"], directory=tmp_path, model=model) as server:
        server.post("/slots/0?action=restore", {"filename": "a"}).raise_for_status()
        flush(server)
    appended = conversation.appended(answer)
    with Server([*files, *memory, tmp_path / "other"], directory=tmp_path, model=model) as server:
        resumed = ask(server, appended)
    assert resumed["timings"]["cache_n"] >= REUSED * (PROMPT_TOKENS + ANSWER_TOKENS - 1)
    with Server(files, directory=tmp_path, model=model, binary=STOCK_BINARY) as stock:
        assert distance(resumed, ask(stock, appended)) <= TOLERANCE_OF_BATCHES
