"""Each architecture with each way to start a server: what is reused after kill -9, and from disk alone.

One of each kind of state in CI, all in `make test-archs`. That writes what was found to
build-reports/matrix.json, of which `tools/matrix` makes the table in docs/memory.md.
"""

import json
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.archs import test_drafts, test_media
from tests.archs.conftest import ALL_MODELS, FEW_MODELS, FEW_REUSED, PLANAR, wants_all
from tests.archs.test_archs import (
    DIFFUSION,
    EDITED_TOKENS,
    REFUSED,
    REUSED,
    SERVER,
    TOLERANCE,
    TOLERANCE_OF_BATCHES,
    Conversation,
    difference,
    most_likely,
)
from tests.archs.test_drafts import FEW_HEADS, MANY_HEADS
from tests.archs.test_media import CONTEXT, LAST, talk
from tests.archs.test_speculation import PHRASE, SIMPLE
from tests.server.conversations import NO_PRELOADING, flush, memory_status
from tests.server.gguf_files import (
    copy_with_letters,
    write_lora_for,
    write_planar_projector,
    write_projector,
)
from tests.server.harness import BINARY, REPOSITORY, STOCK_BINARY, Server, ServerExitedError

WAYS = ["plain", "projector", "LoRA", "n-gram", "draft", "MTP"]
# What stock refuses or computes wrongly; test_archs.py has them.
LIKE_STOCK = DIFFUSION | REFUSED
# Of these random models the adapter changes nothing, with stock either.
UNADAPTED = {"bailingmoe3-moe", "glm5-next-moe", "kimi-k3-moe"}
LOSSES = ["kill -9", "eviction"]
FOUND = REPOSITORY / "build-reports/matrix.json"

# Without RAM, what left its slot is on disk alone.
MEMORY = ["--atlas-block-tokens", "16", "--atlas-l1-cache-size", "1", *NO_PRELOADING]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everything = wants_all(metafunc.config)
    names = ALL_MODELS if everything else [*FEW_REUSED, "llama-dense"]
    heads = MANY_HEADS if everything else FEW_HEADS
    cells = [
        (name, way, loss)
        for name, way, loss in product(names, WAYS, LOSSES)
        if (way != "MTP" or name in heads) and (loss == LOSSES[0] or name in FEW_MODELS)
    ]
    metafunc.parametrize(("name", "way", "loss"), [cell for cell in cells if cell[0] not in LIKE_STOCK])


@dataclass
class Chat:
    """What is told, and how it goes on. `n_changed` tokens at the end of `told` are others in `edited`."""

    model: Path
    told: Any
    edited: Any
    elsewhere: list[Any]
    n_changed: int = EDITED_TOKENS
    options: list[str | Path] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)

    def ask(self, server: Server, prompt: Any, slot: int, **fields: Any) -> dict[str, Any]:
        """The answer. Raises httpx.HTTPError where there is none."""
        answer: dict[str, Any] = self._post(server, prompt, slot, **fields).raise_for_status().json()
        return answer

    def _post(self, server: Server, prompt: Any, slot: int, **fields: Any) -> httpx.Response:
        body: dict[str, Any] = {
            "n_predict": 8,
            "temperature": 0,
            "ignore_eos": True,
            "n_probs": 10,
            "return_tokens": True,
        }
        body |= {"prompt": prompt, "id_slot": slot, "atlas": {}, **self.fields, **fields}
        return server.post("/completion", body)

    def appended(self, first: dict[str, Any]) -> tuple[Any, int]:
        """The next prompt, and how many of its tokens were computed before."""
        return [*self.told, *first["tokens"], 7, 8, 9], len(self.told) + len(first["tokens"]) - 1


class ChatOfImages(Chat):
    """A text with three images in it."""

    def _post(self, server: Server, prompt: Any, slot: int, **fields: Any) -> httpx.Response:
        return test_media.post(server, prompt, id_slot=slot, **fields)

    def appended(self, first: dict[str, Any]) -> tuple[Any, int]:
        return [*self.told, "And then it flies away."], first["timings"]["prompt_n"]


def chat(name: str, way: str, models: Path, directory: Path) -> Chat:
    model = models / f"{name}.gguf"
    if way == "projector":
        seen = directory / "model.gguf"
        width = copy_with_letters(model, seen, CONTEXT)
        write = write_planar_projector if name in PLANAR else write_projector
        images = talk(10, 34, 60)
        return ChatOfImages(
            seen,
            images,
            [*images[:-1], LAST[:-EDITED_TOKENS] + "x" * EDITED_TOKENS],
            [["Somewhere " + LAST], ["Elsewhere " + LAST]],
            options=["--mmproj", write(directory / "mmproj.gguf", width)],
        )
    said = Conversation()
    elsewhere = [Conversation(seed).prompt for seed in (2, 3)]
    made = Chat(model, said.prompt, said.edited, elsewhere)
    if way in ("draft", "MTP"):
        drafted = (test_drafts.plain if way == "draft" else test_drafts.head)(model, directory)
        made.model, made.options = drafted.model, drafted.options
    elif way == "LoRA":
        made.options = ["--lora", write_lora_for(directory / "lora.gguf", model)]
    elif way == "n-gram":
        made.told = [*said.prompt[:150], *PHRASE * 4]
        made.edited = [*made.told[:-EDITED_TOKENS], *said.edited[-EDITED_TOKENS:]]
        made.options = [*SIMPLE]
        made.fields = {"logit_bias": [[token, 8] for token in PHRASE]}
    return made


def likely_apart(answer: dict[str, Any], other: dict[str, Any]) -> float:
    """How far log-probabilities of the first token are."""
    return difference(most_likely(answer)[0], most_likely(other)[0])


def is_answered(told: Chat, options: list[str | Path], directory: Path, binary: Path) -> bool:
    """Whether a server starts like that and answers."""
    try:
        with Server(options, directory=directory, model=told.model, binary=binary) as server:
            told.ask(server, told.told, 0)
    except (ServerExitedError, httpx.HTTPError):
        return False
    return True


def note(name: str, way: str, what: dict[str, float]) -> None:
    """Keep it for the table, the least of all losses."""
    FOUND.parent.mkdir(exist_ok=True)
    found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
    cell = found.setdefault(name, {}).setdefault(way, {})
    for step, part in what.items():
        cell[step] = min(part, cell.get(step, 1.0))
    FOUND.write_text(json.dumps(found, indent=1), encoding="utf-8")


def test_goes_on(
    name: str, way: str, loss: str, models: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    told = chat(name, way, models, tmp_path)
    options = [*SERVER, "-c", str(2 * CONTEXT), *told.options]
    memory: list[str | Path] = ["--atlas-memory-path", tmp_path / "memory", *MEMORY]
    if not (name in FEW_MODELS or is_answered(told, options, tmp_path, STOCK_BINARY)):
        assert not is_answered(told, [*options, *memory], tmp_path, BINARY)
        return
    with Server([*options, *memory], directory=tmp_path, model=told.model) as server:
        assert "problem" not in memory_status(server)
        first = told.ask(server, told.told, 0)
        flush(server)
        if loss == "kill -9":
            server.kill()
            server.start()
        else:
            for slot, prompt in enumerate(told.elsewhere):
                told.ask(server, prompt, slot)
        prompt, n_reusable = told.appended(first)
        appended, edited = told.ask(server, prompt, 0), told.ask(server, told.edited, 1)
    n_kept = first["timings"]["prompt_n"] - told.n_changed
    what = {
        "append": min(1.0, appended["timings"]["cache_n"] / n_reusable),
        "edit": min(1.0, edited["timings"]["cache_n"] / n_kept),
    }
    assert appended["atlas"]["layer"] == 2
    assert min(what.values()) >= REUSED, (what, appended["atlas"], edited["atlas"])
    with Server(options, directory=tmp_path, model=told.model, binary=STOCK_BINARY) as stock:
        expected = told.ask(stock, prompt, 0), told.ask(stock, told.edited, 1)
        without = told.ask(stock, prompt, 0, lora=[{"id": 0, "scale": 0}]) if way == "LoRA" else None
    apart = max(likely_apart(appended, expected[0]), likely_apart(edited, expected[1]))
    if apart > TOLERANCE_OF_BATCHES:  # stock, too, computes something else in several batches
        with Server(options, directory=tmp_path, model=told.model, binary=STOCK_BINARY) as stock:
            for slot in range(2):
                told.ask(stock, told.told, slot)
            again = told.ask(stock, prompt, 0), told.ask(stock, told.edited, 1)
        apart = max(likely_apart(appended, again[0]), likely_apart(edited, again[1]))
    assert apart <= TOLERANCE_OF_BATCHES
    if without and name not in UNADAPTED:  # the adapter changes more than that
        assert likely_apart(without, expected[0]) > max(TOLERANCE, 4 * apart)
    if wants_all(pytestconfig):
        note(name, way, what)
