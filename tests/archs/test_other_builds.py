"""State of another build is tried, and goes on where it is what this one computes."""

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
from tests.server.conversations import NO_PRELOADING, flush, memory_status
from tests.server.harness import STOCK_BINARY, Server
from tests.server.root_records import make_state_anothers

# What is only put back as a whole is not tried.
WHOLE_ONLY = {"deepseek4-moe"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = FEW_MODELS if wants_all(metafunc.config) else [*FEW_REUSED, "llama-dense"]
    metafunc.parametrize("name", names)


def test_state_is_adopted(name: str, models: Path, tmp_path: Path) -> None:
    model = models / f"{name}.gguf"
    memory: list[str | Path] = ["--atlas-memory-path", tmp_path / "memory", *NO_PRELOADING]
    options = [*SERVER, *memory, "--atlas-block-tokens", "64"]
    conversation = Conversation()
    with Server(options, directory=tmp_path, model=model) as server:
        answer = ask(server, conversation.prompt)
        flush(server)
    make_state_anothers(tmp_path)
    with Server(options, directory=tmp_path, model=model) as server:
        server.wait_until(lambda: memory_status(server)["root"])
        said = memory_status(server)["state_of_others"]["proof"]
        resumed = ask(server, conversation.appended(answer))["timings"]["cache_n"]
    assert (name in WHOLE_ONLY) == ("as a whole" in said)
    assert "is left alone" in said if name in WHOLE_ONLY else "is used" in said
    assert resumed >= REUSED * PROMPT_TOKENS


@pytest.mark.parametrize("attention", [("on", "off"), ("off", "on")], ids="-to-".join)
def test_state_of_another_attention_is_adopted(
    name: str, attention: tuple[str, str], models: Path, tmp_path: Path
) -> None:
    """With flash attention the cache has the values of V by cells, without it by dimensions."""
    model = models / f"{name}.gguf"
    memory: list[str | Path] = ["--atlas-memory-path", tmp_path / "memory", *NO_PRELOADING]
    options = [*SERVER, *memory, "--atlas-block-tokens", "64", "-fa"]
    conversation = Conversation()
    with Server([*options, attention[0]], directory=tmp_path, model=model) as server:
        answer = ask(server, conversation.prompt)
        flush(server)
    appended = conversation.appended(answer)
    with Server([*options, attention[1]], directory=tmp_path, model=model) as server:
        server.wait_until(lambda: memory_status(server)["root"])
        said = memory_status(server)["state_of_others"]["proof"]
        resumed = ask(server, appended)
    assert f"flash_attn={int(attention[0] == 'on')}" in said
    if name in WHOLE_ONLY:
        assert "is left alone" in said
        return
    assert "is used" in said
    assert resumed["timings"]["cache_n"] >= REUSED * PROMPT_TOKENS
    cold = [*SERVER, "-fa", attention[1]]
    with Server(cold, directory=tmp_path, model=model, binary=STOCK_BINARY) as stock:
        assert distance(resumed, ask(stock, appended)) <= TOLERANCE_OF_BATCHES
