"""Models and heads that draft tokens: after kill -9 they foretell as much as if the server had gone on."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.archs.conftest import wants_all
from tests.archs.drafts import copy_with_head, copy_with_noise, write_dflash, write_eagle
from tests.archs.test_archs import SERVER, TOKENS
from tests.archs.test_media import LAST, SHADES, Seeing, assert_same, talk
from tests.archs.test_media import ask as ask_about
from tests.server.conversations import NO_PRELOADING, flush
from tests.server.harness import STOCK_BINARY, Server

CONTEXT = 4096
# Small batches, so that a draft model that has lost its state cannot compute all of it in one.
BATCH = 64
OPTIONS = [*SERVER, "-np", "2", "-c", str(2 * CONTEXT), "-b", str(BATCH), "-ub", str(BATCH)]
BLOCK = 32
PROMPT_TOKENS, ANSWER_TOKENS = 300, 160
# Of the rate at which drafted tokens are accepted.
TOLERANCE = 0.02
REUSED = 0.9

FEW_PLAIN = ["llama-dense", "gemma3-dense", "qwen35-dense"]
MANY_PLAIN = [*FEW_PLAIN, "deepseek2-moe", "deepseek4-moe", "gpt-oss-moe", "lfm2-dense", "mamba-dense"]
FEW_HEADS = ["qwen35-dense", "deepseek2-moe"]
# Those whose heads upstream computes with its random models.
MANY_HEADS = [
    *FEW_HEADS,
    "cohere2moe-moe",
    "deepseek32-moe",
    "glm-dsa-moe",
    "hy_v3-moe",
    "qwen35moe-moe",
    "qwen3next-moe",
]
FEW_EAGLES = ["qwen35-dense"]
MANY_EAGLES = [*FEW_EAGLES, "llama-dense"]


@dataclass
class Drafted:
    """A model, and the options for what drafts for it."""

    model: Path
    options: list[str | Path]


Make = Callable[[Path, Path], Drafted]


def plain(source: Path, directory: Path, noise: float = 0.2) -> Drafted:
    """A model with one beside it that is much like it."""
    draft = copy_with_noise(source, directory / "draft.gguf", CONTEXT, noise)
    model = copy_with_noise(source, directory / "model.gguf", CONTEXT)
    return Drafted(model, ["--spec-type", "draft-simple", "--model-draft", draft])


def head(source: Path, directory: Path) -> Drafted:
    """A model with a head of its own (MTP)."""
    model = copy_with_head(source, directory / "model.gguf", CONTEXT)
    return Drafted(model, ["--spec-type", "draft-mtp"])


def eagle(source: Path, directory: Path) -> Drafted:
    """A model with an EAGLE-3 head in a file of its own."""
    made = write_eagle(source, directory / "draft.gguf", CONTEXT)
    model = copy_with_noise(source, directory / "model.gguf", CONTEXT)
    return Drafted(model, ["--spec-type", "draft-eagle3", "--model-draft", made])


def dflash(source: Path, directory: Path) -> Drafted:
    """A model with a DFlash head in a file of its own."""
    made = write_dflash(source, directory / "draft.gguf", CONTEXT)
    model = copy_with_noise(source, directory / "model.gguf", CONTEXT)
    return Drafted(model, ["--spec-type", "draft-dflash", "--model-draft", made])


def dspark(source: Path, directory: Path) -> Drafted:
    """A model with a DSpark head in a file of its own."""
    made = write_dflash(source, directory / "draft.gguf", CONTEXT, is_dspark=True)
    model = copy_with_noise(source, directory / "model.gguf", CONTEXT)
    return Drafted(model, ["--spec-type", "draft-dspark", "--model-draft", made])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "make" in metafunc.fixturenames:
        everything = wants_all(metafunc.config)
        pairs: list[tuple[Make, str]] = [(plain, name) for name in (MANY_PLAIN if everything else FEW_PLAIN)]
        pairs += [(head, name) for name in (MANY_HEADS if everything else FEW_HEADS)]
        pairs += [(eagle, name) for name in (MANY_EAGLES if everything else FEW_EAGLES)]
        pairs += [(dflash, "llama-dense")]
        pairs += [(dflash, "qwen35-dense"), (dspark, "llama-dense")] if everything else []
        ids = [f"{make.__name__}-{name}" for make, name in pairs]
        metafunc.parametrize(("make", "name"), pairs, ids=ids)


def tokens(count: int, seed: int = 1) -> list[int]:
    return random.Random(seed).choices(TOKENS, k=count)


@dataclass
class Answer:
    """What a completion came to."""

    tokens: list[int]
    reused: int
    drafted: int
    accepted: int

    @property
    def rate(self) -> float:
        return self.accepted / self.drafted


def ask(server: Server, prompt: list[int], **fields: Any) -> Answer:
    body = {"prompt": prompt, "temperature": 0, "ignore_eos": True, "return_tokens": True, "id_slot": 0}
    options = {"n_predict": ANSWER_TOKENS, "atlas": {}}
    answer: dict[str, Any] = server.post("/completion", body | options | fields).json()
    assert "tokens" in answer, answer
    timings = answer["timings"]
    return Answer(
        answer["tokens"], timings["cache_n"], timings.get("draft_n", 0), timings.get("draft_n_accepted", 0)
    )


def restored(server: Server) -> list[tuple[int, int]]:
    """For each restore since the first start, how many tokens of the draft came back, and of how many."""
    found = re.findall(r"(\d+) of (\d+) tokens of the draft restored", server.log)
    return [(int(some), int(all_)) for some, all_ in found]


def server_of(drafted: Drafted, directory: Path, *options: str | Path) -> Server:
    memory: list[str | Path] = ["--atlas-memory-path", directory / "memory", *NO_PRELOADING]
    memory += ["--atlas-block-tokens", str(BLOCK)]
    return Server([*OPTIONS, *options, *memory], directory=directory, model=drafted.model)


def converse(server: Server, between: Callable[[Server], None]) -> list[Answer]:
    """A conversation that goes on, and then has its history edited. `between` is called between the turns."""
    said = tokens(PROMPT_TOKENS)
    answers = [ask(server, said)]
    between(server)
    said = [*said, *answers[0].tokens, *tokens(10, 2)]
    answers.append(ask(server, said))
    between(server)
    said = [*said, *answers[1].tokens[:-40], *tokens(20, 3)]
    answers.append(ask(server, said))
    return answers


def restart(server: Server) -> None:
    flush(server)
    server.kill()
    server.start()


def go_elsewhere(server: Server) -> None:
    """Has the slot taken by somebody else."""
    ask(server, tokens(PROMPT_TOKENS, 9), n_predict=4)


def test_foretells_as_much_after_kill_9(make: Make, name: str, models: Path, tmp_path: Path) -> None:
    drafted = make(models / f"{name}.gguf", tmp_path)
    with server_of(drafted, tmp_path, *drafted.options) as server:
        assert "problem" not in server.get("/v1/atlas/status").json()["data"]["memory"]
        resumed = converse(server, restart)
        assert len(restored(server)) == 2
        assert all(some == all_ for some, all_ in restored(server))
    warm_directory = tmp_path / "warm"
    warm_directory.mkdir()
    with server_of(drafted, warm_directory, *drafted.options) as server:
        warm = converse(server, lambda _: None)
    assert [each.tokens for each in resumed] == [each.tokens for each in warm]
    assert make not in (plain, head) or sum(each.accepted for each in warm) > 0
    for each, expected in zip(resumed, warm, strict=True):
        assert abs(each.rate - expected.rate) <= TOLERANCE
    assert resumed[1].reused >= REUSED * (PROMPT_TOKENS + ANSWER_TOKENS - 1)


def test_comes_back_from_ram(make: Make, name: str, models: Path, tmp_path: Path) -> None:
    drafted = make(models / f"{name}.gguf", tmp_path)
    with server_of(drafted, tmp_path, *drafted.options) as server:
        answers = converse(server, go_elsewhere)
        assert len(restored(server)) >= 2
        assert all(some == all_ for some, all_ in restored(server))
    assert answers[1].reused >= REUSED * (PROMPT_TOKENS + ANSWER_TOKENS - 1)


def test_never_reuses_less_than_stock(make: Make, name: str, models: Path, tmp_path: Path) -> None:
    drafted = make(models / f"{name}.gguf", tmp_path)
    with server_of(drafted, tmp_path, *drafted.options) as server:
        ours = converse(server, lambda _: None)
    stock = [*OPTIONS, *drafted.options]
    with Server(stock, directory=tmp_path, model=drafted.model, binary=STOCK_BINARY) as server:
        said = tokens(PROMPT_TOKENS)
        assert ask(server, said).reused == 0
        said = [*said, *ours[0].tokens, *tokens(10, 2)]
        assert ask(server, said).reused <= ours[1].reused
        said = [*said, *ours[1].tokens[:-40], *tokens(20, 3)]
        assert ask(server, said).reused <= ours[2].reused


@pytest.mark.parametrize("kind", [plain, head, eagle])
def test_state_without_a_draft_serves_with_one(kind: Make, models: Path, tmp_path: Path) -> None:
    """And the other way round. A draft model that lacks more than a batch has the last tokens alone."""
    drafted = kind(models / "qwen35-dense.gguf", tmp_path)
    said = tokens(PROMPT_TOKENS)
    with server_of(drafted, tmp_path) as server:
        first = ask(server, said)
        flush(server)
    said = [*said, *first.tokens, *tokens(10, 2)]
    with server_of(drafted, tmp_path, *drafted.options) as server:
        second = ask(server, said)
        assert second.reused >= REUSED * (PROMPT_TOKENS + ANSWER_TOKENS - 1)
        assert second.drafted > 0
        assert [some for some, _ in restored(server)] == [0]
        assert "it has not all" in server.log
        flush(server)
    said = [*said, *second.tokens, *tokens(10, 3)]
    with server_of(drafted, tmp_path) as server:
        assert ask(server, said).reused >= REUSED * (len(said) - 10)


def test_a_draft_catches_up_within_a_batch(models: Path, tmp_path: Path) -> None:
    """One that is the model itself foretells everything, once it has computed what it lacks."""
    drafted = plain(models / "llama-dense.gguf", tmp_path, noise=0)
    said = tokens(BATCH - 10)
    with server_of(drafted, tmp_path) as server:
        first = ask(server, said, n_predict=8)
        flush(server)
    said = [*said, *first.tokens, 7]
    with server_of(drafted, tmp_path, *drafted.options) as server:
        second = ask(server, said)
        assert second.reused == len(said) - 2
        assert restored(server) == [(0, second.reused)]
        assert second.accepted == second.drafted > 0
        restart(server)
        # what it computed was kept
        third = ask(server, [*said, *second.tokens, 7])
        assert restored(server)[-1] == (third.reused, third.reused)


def test_other_drafts_have_state_of_their_own(models: Path, tmp_path: Path) -> None:
    drafted = plain(models / "llama-dense.gguf", tmp_path)
    said = tokens(PROMPT_TOKENS)
    with server_of(drafted, tmp_path, *drafted.options) as server:
        first = ask(server, said)
        flush(server)
    said = [*said, *first.tokens, 7]
    with server_of(drafted, tmp_path, *drafted.options, "--spec-draft-type-k", "q8_0") as server:
        assert ask(server, said).reused == len(said) - 2
        assert restored(server) == [(0, len(said) - 2)]
    with server_of(drafted, tmp_path, *drafted.options) as server:
        assert ask(server, said).reused >= len(said) - 2
        assert restored(server)[-1][0] == len(said) - 2


def test_a_slot_file_has_none(models: Path, tmp_path: Path) -> None:
    """Upstream leaves the draft as it was, and then ends with an error."""
    drafted = plain(models / "llama-dense.gguf", tmp_path)
    said = tokens(PROMPT_TOKENS)
    with server_of(drafted, tmp_path, *drafted.options, "--slot-save-path", tmp_path) as server:
        first = ask(server, said)
        server.post("/slots/0?action=save", {"filename": "saved.bin"}).raise_for_status()
        restart(server)
        ask(server, tokens(50, 9), n_predict=4)
        server.post("/slots/0?action=restore", {"filename": "saved.bin"}).raise_for_status()
        again = ask(server, [*said, *first.tokens, 7])
        assert again.reused >= PROMPT_TOKENS + ANSWER_TOKENS - 1
        assert again.drafted > 0


@pytest.mark.parametrize(
    ("kind", "name"), [(plain, "llama-dense"), (plain, "qwen35-dense"), (head, "qwen35-dense")]
)
def test_images_come_back_beside_a_draft(kind: Make, name: str, models: Path, tmp_path: Path) -> None:
    """A draft model has a place for each of their tokens. A head has none, which works with M-RoPE only."""
    directory = tmp_path / "models"
    directory.mkdir()
    made = kind(models / f"{name}.gguf", directory)
    made.model.rename(directory / f"{name}.gguf")
    seeing = Seeing(name, directory, tmp_path, "-c", str(2 * CONTEXT))
    seeing.options += made.options
    if kind is plain:
        copy_with_noise(seeing.model, directory / "draft.gguf", CONTEXT, 0.2)
    goes_on = [*talk(*SHADES), "And then it flies away."]
    with seeing.ours() as server:
        ask_about(server, talk(*SHADES))
        restart(server)
        again = ask_about(server, goes_on, n_predict=24)
        assert again["timings"]["prompt_n"] < len(LAST)
        assert again["timings"]["draft_n"] > 0
        ((some, every),) = restored(server)
        assert some == (every if kind is plain else 0)
    with seeing.stock() as stock:
        assert_same(again, ask_about(stock, goes_on, n_predict=24))
