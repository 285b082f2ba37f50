"""Trains the demo model on generated dialogues and writes it: about an hour on two cores, no GPU.

Progress goes to standard error, with how many answers of dialogues with unseen names are right. The same seed
on the same machine and version of PyTorch makes the same model.
"""

import argparse
import hashlib
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from demo_model import dialogues, gguf_file, tokenizer
from demo_model.evaluation_dialogues import Case, known_fact, unknown_fact
from demo_model.gguf_file import Shape
from tests.server.harness import MODEL

try:
    import torch
    import torch.nn.functional as F  # noqa: N812
    from torch import Tensor

    from demo_model.muon import Muon
    from demo_model.network import Network
except ModuleNotFoundError as error:
    raise SystemExit(
        f"train-demo-model: no module {error.name}; PyTorch is large and used for nothing else:\n"
        "  .venv/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu"
    ) from None


class Stage(NamedTuple):
    """`steps` batches of dialogues of `length` tokens, of which a share `distant` has the questions last."""

    length: int
    steps: int
    distant: float


# Copying is learned on short dialogues, from which it has to be stretched to long ones.
STAGES = (
    Stage(length=256, steps=1000, distant=0.45),
    Stage(length=512, steps=400, distant=0.45),
    Stage(length=1024, steps=400, distant=0.5),
    Stage(length=2048, steps=1150, distant=0.7),
)
TOKENS_A_STEP = 8192
# How much a token counts of an answer that recalls, of another answer, and of what the user says. Only a
# share of the last is looked at, as it is most of all and teaches least.
RECALL_WEIGHT, ANSWER_WEIGHT, OTHER_WEIGHT = 2.0, 0.7, 0.3
OTHER_SHARE = 1 / 3
MATRIX_RATE, OTHER_RATE = 0.02, 3e-3
WARM_UP_STEPS = 100
CONSTANT_SHARE = 0.4
LAST_RATE = 0.02
GRADIENT_LIMIT = 1.0
EXAMINED_DISTANCES = (50, 200, 500, 1000, 1500)
STEPS_TO_SAY, STEPS_TO_EXAMINE = 50, 400


def rate_at(progress: float, step: int) -> float:
    """The learning rate as a share of the highest: warm-up, constant, then half a cosine."""
    decay = max(0.0, (progress - CONSTANT_SHARE) / (1 - CONSTANT_SHARE))
    cosine = (1 + math.cos(math.pi * decay)) / 2
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (LAST_RATE + (1 - LAST_RATE) * cosine)


class Batches:
    """Batches of new dialogues without end."""

    def __init__(self, tokens: tokenizer.Tokenizer, seed: int) -> None:
        self._tokens = tokens
        self._rng = random.Random(seed)
        self._writer = dialogues.Writer(self._rng)

    def next(self, stage: Stage) -> tuple[Tensor, Tensor]:
        """Token numbers and the weight of each, both [dialogues, length + 1]."""
        count = TOKENS_A_STEP // stage.length
        numbers = torch.full((count, stage.length + 1), tokenizer.PADDING)
        weights = torch.zeros(count, stage.length + 1)
        for row in range(count):
            turns = self._writer.dialogue(stage.length + 1, self._tokens.count, stage.distant)
            rendered, answers = self._tokens.render(turns)
            numbers[row, : len(rendered)] = torch.tensor(rendered)
            weights[row, : len(rendered)] = torch.tensor([self._weight(answer) for answer in answers])
        return numbers, weights

    def _weight(self, answer: dialogues.Turn | None) -> float:
        if answer is None:
            return OTHER_WEIGHT if self._rng.random() < OTHER_SHARE else 0.0
        return RECALL_WEIGHT if answer.recalls else ANSWER_WEIGHT


class Learner:
    """The network and what changes it."""

    def __init__(self, shape: Shape) -> None:
        self.network = Network(shape)
        self._forward = torch.compile(self.network.forward, dynamic=False)
        matrices = self.network.matrices()
        self._others = [p for p in self.network.parameters() if not any(p is m for m, _ in matrices)]
        self._muon = Muon(matrices)
        self._adam = torch.optim.AdamW(self._others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0)

    def learn(self, numbers: Tensor, weights: Tensor, rate: float) -> float:
        """One step, with `rate` times the highest learning rates; the mean loss of recalled answers."""
        weights = weights[:, 1:].flatten()
        counted = weights > 0
        weights = weights[counted]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = self._forward(numbers[:, :-1]).flatten(0, 1)[counted]
            logits = self.network.logits(states)
        losses = F.cross_entropy(logits.float(), numbers[:, 1:].flatten()[counted], reduction="none")
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(self._others, GRADIENT_LIMIT)
        for group in self._adam.param_groups:
            group["lr"] = OTHER_RATE * rate
        self._adam.step()
        self._muon.step(MATRIX_RATE * rate)
        self.network.zero_grad(set_to_none=True)
        return losses.detach()[weights == RECALL_WEIGHT].mean().item()


class Examination:
    """Dialogues that training does not see."""

    def __init__(self, tokens: tokenizer.Tokenizer) -> None:
        self._tokens = tokens
        self._known = {
            d: [known_fact(tokens, d * 1000 + n, d) for n in range(40)] for d in EXAMINED_DISTANCES
        }
        self._unknown = [unknown_fact(tokens, n, distance=300) for n in range(40)]

    @torch.no_grad()
    def _right(self, network: Network, cases: Sequence[Case]) -> str:
        right = 0
        for case in cases:
            numbers, _ = self._tokens.render(case.turns)
            asked = len(self._tokens.render(case.turns[:-1])[0])
            states = network(torch.tensor([numbers[:-1]]))[0, asked:]
            # each token given the right ones before it
            right += network.logits(states).argmax(-1).tolist() == numbers[asked + 1 :]
        return f"{right}/{len(cases)}"

    def of(self, network: Network, longest: int) -> str:
        """How many answers are exactly right, at distances up to `longest` tokens."""
        known = (f"{d}: {self._right(network, cases)}" for d, cases in self._known.items() if d <= longest)
        return f"right at distance {', '.join(known)}; not told: {self._right(network, self._unknown)}"


class Training:
    """A network on its way. `save` is called whenever it was examined."""

    def __init__(
        self,
        tokens: tokenizer.Tokenizer,
        seed: int,
        threads: int,
        save: Callable[[Network, tokenizer.Tokenizer], None],
    ) -> None:
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        self._tokens = tokens
        self.learner = Learner(Shape(vocabulary=len(self._tokens.tokens)))
        self._batches = Batches(self._tokens, seed)
        self._examination = Examination(self._tokens)
        self._save = save
        parameters = sum(p.numel() for p in self.learner.network.parameters())
        say(f"{parameters:,} parameters, {TOKENS_A_STEP:,} tokens a step, {threads} threads")

    def run(self, stages: Sequence[Stage]) -> None:
        """Learn all stages."""
        network = self.learner.network
        total = sum(stage.steps for stage in stages)
        started, step, average = time.monotonic(), 0, 0.0
        for stage in stages:
            for _ in range(stage.steps):
                loss = self.learner.learn(*self._batches.next(stage), rate_at(step / total, step))
                average = 0.95 * average + 0.05 * loss if step else loss
                step += 1
                if step % STEPS_TO_SAY == 0:
                    seconds = time.monotonic() - started
                    say(
                        f"step {step:,} of {total:,}, {seconds / 60:.1f} min, length {stage.length}, "
                        f"{step * TOKENS_A_STEP / seconds:,.0f} tokens/s, loss of recalled {average:.4f}"
                    )
                if step % STEPS_TO_EXAMINE == 0 or step == total:
                    say(self._examination.of(network, stage.length))
                    self._save(network, self._tokens)


def say(text: str) -> None:
    """Show progress."""
    print(f"train-demo-model: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make train-demo-model", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=MODEL, help="the GGUF file to write, with its .sha256 (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of dialogues and first weights (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="that compute (%(default)s)")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="train this many times as long (%(default)s); 0.01 tries it out",
    )
    options = parser.parse_args()
    stages = tuple(stage._replace(steps=math.ceil(stage.steps * options.scale)) for stage in STAGES)
    unfinished = options.output.with_suffix(".unfinished")

    def save(network: Network, tokens: tokenizer.Tokenizer) -> None:
        weights = {name: tensor.numpy() for name, tensor in network.tensors().items()}
        gguf_file.write(unfinished, weights, network.shape, tokens)

    Training(tokenizer.build(), options.seed, options.threads, save).run(stages)
    unfinished.replace(options.output)
    content = options.output.read_bytes()
    checksum = options.output.with_name(options.output.name + ".sha256")
    checksum.write_text(hashlib.sha256(content).hexdigest() + "\n", encoding="ascii")
    say(f"written: {options.output}, {len(content):,} bytes")


if __name__ == "__main__":
    main()
