"""Whatever follows what on a slot: a memory reuses at least what stock does, and the same comes out."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.archs.conftest import wants_all
from tests.archs.test_archs import SERVER, TOKENS, difference, most_likely
from tests.server.conversations import flush, wait_for_memory
from tests.server.harness import STOCK_BINARY, Server

FEW_EXAMPLES, MANY_EXAMPLES = 5, 10
CONTEXT = 2048
# Small batches, so that short prompts have all that long ones have: a part that can be rolled back, one that
# cannot, and upstream's checkpoints at 4 and 68 tokens before the end.
OPTIONS = [*SERVER, "-np", "1", "-c", str(CONTEXT), "-b", "128", "-ub", "64"]
MEMORY = ["--atlas-block-tokens", "64"]
# The answer is always the same, as near ties of random models are not.
ANSWER = [7] * 4
# Stock computes other probabilities for one prompt in batches that are cut otherwise.
TOLERANCE = 5e-2
# Fewer tokens than this are sooner computed than looked up.
SHORTEST = 40


@dataclass
class Talk:
    """Prompts that follow one another: conversations that share their beginning."""

    seed: int
    system: int
    conversations: list[list[int]] = field(default_factory=list)
    present: int = 0
    drawn: int = 0

    def tokens(self, count: int) -> list[int]:
        """New ones, the same for the same seed and steps."""
        made = [
            TOKENS[(self.seed * 7919 + number * number * 31 + number) % len(TOKENS)]
            for number in range(self.drawn, self.drawn + count)
        ]
        self.drawn += count
        return made

    def prompt(self, step: str, size: int) -> list[int]:
        """The prompt after a step; every kind of step takes any size."""
        if not self.conversations:
            self.conversations.append(self.tokens(self.system))
            step = "new"
        told = self.conversations[self.present]
        match step:
            case "new":
                self.conversations.append(self.conversations[0] + self.tokens(SHORTEST + size))
                self.present = len(self.conversations) - 1
            case "switch":
                self.present = 1 + size % (len(self.conversations) - 1)
                self.conversations[self.present] += ANSWER + self.tokens(1 + size % 9)
            case "append":
                told += ANSWER + self.tokens(1 + size)
            case "edit":
                del told[-1 - size % 50 :]
                told += self.tokens(1 + size % 7)
            case "cut":
                del told[-1 - size % 30 :]
            case "branch":
                del told[size * len(told) // 512 :]
                told += self.tokens(30)
        told = self.conversations[self.present]
        told += self.tokens(max(0, SHORTEST - len(told)))
        del told[CONTEXT // 2 :]
        return list(told)


class Pair:
    """Ours and stock, which get the same requests."""

    used_seeds: ClassVar[int] = 0

    def __init__(self, ours: Server, stock: Server) -> None:
        self.ours, self.stock = ours, stock
        self.begin()

    def begin(self) -> None:
        """Forget what was asked before."""
        self.trace: list[str] = []
        self.gained = 0
        self.is_restored = False

    def ask(self, prompt: list[int], step: str = "") -> None:
        """One completion of each, compared."""
        body = {
            "prompt": prompt,
            "n_predict": len(ANSWER),
            "logit_bias": [[ANSWER[0], 1e3]],
            "ignore_eos": True,
            "temperature": 0,
            "n_probs": 5,
            "return_tokens": True,
            "atlas": {},
        }
        answer, expected = (server.post("/completion", body).json() for server in (self.ours, self.stock))
        assert answer["tokens"] == expected["tokens"] == ANSWER
        assert difference(most_likely(answer)[0], most_likely(expected)[0]) <= TOLERANCE
        reused, expects = answer["timings"]["cache_n"], expected["timings"]["cache_n"]
        self.trace.append(
            f"{step}: {len(prompt)} tokens, reused {reused}, by stock {expects}, {answer['atlas']}"
        )
        # A slot that computed a short prompt itself still has more of a sliding window than what is kept.
        self.gained += reused - expects
        assert reused >= expects or (self.is_restored and self.gained >= 0), self.trace
        self.is_restored = self.is_restored or answer["atlas"]["layer"] > 0
        if answer["atlas"]["reason"] is None:
            assert reused > 0, self.trace

    def restart(self) -> None:
        """Both then have to bring the conversation back: from disk, and from stock's prompt cache."""
        self.trace.append("restart")
        flush(self.ours)
        self.ours.stop()
        self.ours.start()
        wait_for_memory(self.ours)
        elsewhere = [TOKENS[number % 3] for number in range(SHORTEST)]
        self.stock.post("/completion", {"prompt": elsewhere, "n_predict": 1})


@pytest.fixture(scope="module", params=["alone", "drafted"])
def is_drafted(request: pytest.FixtureRequest) -> bool:
    """Whether the model drafts for itself: what it foretells is refused, as the answer is another."""
    return bool(request.param == "drafted")


@pytest.fixture(scope="module")
def pair(
    reuse_model: str, is_drafted: bool, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("reuse")
    model = directory / "model.gguf"
    shutil.copy(models / f"{reuse_model}.gguf", model)
    metadata = GGUFReader(model, "r+")
    architecture = metadata.fields["general.architecture"].contents()
    length = metadata.fields[f"{architecture}.context_length"]
    length.parts[length.data[0]][0] = CONTEXT
    metadata.data.flush()
    options: list[str | Path] = [*OPTIONS]
    options += ["--spec-type", "draft-simple", "--model-draft", model] if is_drafted else []
    memory: list[str | Path] = ["--atlas-memory-path", directory / "memory", *MEMORY]
    with (
        Server([*options, *memory], directory=directory, model=model) as ours,
        Server(options, directory=directory, model=model, binary=STOCK_BINARY) as stock,
    ):
        yield Pair(ours, stock)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["new", "switch", "append", "append", "same", "edit", "cut", "branch", "restart"]),
        st.integers(0, 511),
    ),
    min_size=6,
    max_size=16,
)


@pytest.mark.timeout(1800)
def test_at_least_what_stock_reuses(pair: Pair, pytestconfig: pytest.Config) -> None:
    @settings(
        max_examples=MANY_EXAMPLES if wants_all(pytestconfig) else FEW_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # shrinking takes minutes; the trace says what happened
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(system=st.integers(10, 400), steps=STEPS)
    def follow(system: int, steps: list[tuple[str, int]]) -> None:
        Pair.used_seeds += 1
        talk = Talk(Pair.used_seeds, system)
        pair.begin()
        for step, size in steps:
            if step == "restart":
                pair.restart()
            else:
                pair.ask(talk.prompt(step, size), step)

    follow()
