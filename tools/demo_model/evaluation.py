"""Measures a demo model through llama-server: greedy answers, compared exactly, to dialogues it never saw.

Distances are counted with the model's own tokenizer, which is compared with the server's first.
"""

import argparse
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo_model import small_talk
from demo_model.dialogues import Turn, Writer
from demo_model.evaluation_dialogues import Case, known_fact, summary, unknown_fact
from demo_model.facts import FACTS
from demo_model.small_talk import OFF_SCRIPT
from demo_model.tokenizer import Tokenizer
from load.arguments import positive
from tests.server.harness import BINARY, MODEL, Server

DISTANCES = (50, 100, 200, 400, 700, 1000, 1250, 1500)
CONTEXT = 2048
MOST_TOKENS = 160
POLITE = frozenset({OFF_SCRIPT, *(answer for _, answer in small_talk.CHAT)})

# What people ask that no template has.
OFF_SCRIPT_REQUESTS = (
    "What is the capital of France?",
    "Who was the first man on the moon?",
    "Write a Python function that reverses a list.",
    "Explain quantum entanglement.",
    "What is 17 times 23?",
    "Translate good morning into French.",
    "Give me a recipe for lasagne.",
    "How do I install Linux?",
    "Who won the world cup in 1998?",
    "What is the meaning of life?",
    "Summarise Hamlet in one sentence.",
    "Write a haiku about autumn.",
    "Is the earth flat?",
    "What is the population of Brazil?",
    "How do vaccines work?",
    "Which is heavier, iron or feathers?",
    "Convert 10 miles into kilometres.",
    "Who is the president of the United States?",
    "What causes thunder?",
    "Solve x squared equals four.",
    "Recommend a restaurant in Paris.",
    "What does photosynthesis do?",
    "How many planets are there?",
    "Fix this code: printf(1",
    "What is the fastest animal?",
    "Draw a picture of a horse.",
    "What is the speed of light?",
    "Why do we dream?",
    "Book me a flight to London.",
    "What is a prime number?",
    "Who painted the Mona Lisa?",
    "When did the second world war end?",
    "What is my shoe size?",
    "How old am I?",
    "What is my mother's name?",
    "Play some music.",
    "Turn off the lights.",
    "How tall is Mount Everest?",
    "Tell me about the history of Rome.",
    "What should I wear to a wedding?",
)

Chat = Callable[[Iterable[Turn]], str]


@dataclass
class Result:
    """How many answers of a kind were right."""

    kind: str
    right: int = 0
    asked: int = 0
    wrong: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, question: str, expected: str, answer: str, right: bool | None = None) -> None:
        """Count an answer, right if it is the expected one."""
        self.asked += 1
        if answer == expected if right is None else right:
            self.right += 1
        else:
            self.wrong.append((question, expected, answer))

    def __str__(self) -> str:
        return f"| {self.kind} | {self.right} of {self.asked} | {100 * self.right / self.asked:.1f} % |"


def chat_with(server: Server) -> Chat:
    """Asks the server for the answer to a dialogue. Raises httpx.HTTPStatusError."""

    def ask(turns: Iterable[Turn]) -> str:
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        body = {"messages": messages, "temperature": 0, "max_tokens": MOST_TOKENS}
        answer: dict[str, Any] = server.post("/v1/chat/completions", body).raise_for_status().json()
        text: str = answer["choices"][0]["message"]["content"]
        return text

    return ask


def compare_tokens(server: Server, tokens: Tokenizer) -> Result:
    """Whether the server makes the same tokens of a dialogue as the generator counted."""
    result = Result("dialogues that the server makes the same tokens of")
    rng = random.Random(3)
    writer = Writer(rng)
    for _ in range(50):
        turns = writer.dialogue(400, tokens.count, distant=0.5)
        text = "".join(f"<|{turn.role}|>{turn.text}<|end|>" for turn in turns)
        body = {"content": text, "add_special": True, "parse_special": True}
        found = server.post("/tokenize", body).raise_for_status().json()["tokens"]
        result.add(text, "", "", right=found == tokens.render(turns)[0])
    return result


def ask_cases(kind: str, chat: Chat, cases: Iterable[Case]) -> Result:
    """The last question of each, after the answers that are in it."""
    result = Result(kind)
    for case in cases:
        result.add(case.turns[-2].text, case.answer, chat(case.turns[:-1]))
    return result


def ask_turn_by_turn(chat: Chat, cases: Iterable[Case]) -> Result:
    """The last question after the model's own answers."""
    result = Result("after its own answers, 100 to 1,000 tokens")
    for case in cases:
        turns: list[Turn] = []
        for turn in case.turns:
            if turn.role == "user":
                turns.append(turn)
                turns.append(Turn("assistant", chat(turns)))
        result.add(case.turns[-2].text, case.answer, turns[-1].text)
    return result


def invented(case: Case, answer: str) -> bool:
    """Whether an answer to what is known claims a fact that was not told, or another than was told."""
    told = {case.told.answer(key) for key in case.told.values}
    patterns = [re.sub(r"\\{\w+\\}", ".+", re.escape(fact.answer)) for fact in FACTS.values()]
    claimed = [
        sentence for sentence in _sentences(answer) if any(re.fullmatch(p, sentence) for p in patterns)
    ]
    return any(sentence not in told for sentence in claimed)


def _sentences(text: str) -> list[str]:
    return [f"You{part}" if number else part for number, part in enumerate(re.split(r"(?<=\.) You", text))]


def measure(server: Server, tokens: Tokenizer, share: float) -> list[Result]:
    """All figures of the model card, of `share` times as many dialogues."""
    chat = chat_with(server)

    def some(count: int) -> range:
        return range(max(1, round(count * share)))

    def known(seed: int, distance: int, ordinary: bool = False) -> Case:
        return known_fact(tokens, 1_000_000 + 1000 * distance + seed, distance, ordinary)

    results = [compare_tokens(server, tokens)]
    spread = [known(7000 + n, random.Random(n).randint(50, 1500), ordinary=n % 4 == 0) for n in some(200)]
    results.append(ask_cases("facts told 50 to 1,500 tokens ago", chat, spread))
    for distance in DISTANCES:
        many = 100 if distance == DISTANCES[-1] else 40
        cases = [known(n, distance) for n in some(many)]
        results.append(ask_cases(f"{distance:,} tokens ago", chat, cases))
        cases = [known(500 + n, distance, ordinary=True) for n in some(many)]
        results.append(ask_cases(f"{distance:,} tokens ago, ordinary names", chat, cases))
    far = [unknown_fact(tokens, 2_000_000 + n, random.Random(n).randint(20, 1400)) for n in some(100)]
    results.append(ask_cases("facts never told", chat, far))
    results.append(ask_turn_by_turn(chat, [known(9000 + n, 100 + 18 * n) for n in some(50)]))
    summaries = [summary(tokens, 3_000_000 + n, 20 * n) for n in some(50)]
    exact, honest = (
        Result('"What do you know about me?": all that was told'),
        Result("the same: nothing invented"),
    )
    for case in summaries:
        answer = chat(case.turns[:-1])
        exact.add(case.turns[-2].text, case.answer, answer)
        honest.add(case.turns[-2].text, case.answer, answer, right=not invented(case, answer))
    results += [exact, honest]
    polite = Result("off the script: a polite answer")
    for request in OFF_SCRIPT_REQUESTS[: len(some(len(OFF_SCRIPT_REQUESTS)))]:
        answer = chat([Turn("user", request)])
        polite.add(request, OFF_SCRIPT, answer, right=answer in POLITE)
    return [*results, polite]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make evaluate-demo-model", description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=MODEL, help="the GGUF file (%(default)s)")
    parser.add_argument("--threads", type=positive, default=2, help="of the server (%(default)s)")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the dialogues; 0.1 is quick (%(default)s)"
    )
    parser.add_argument("--wrong", action="store_true", help="show the wrong answers")
    options = parser.parse_args()
    if not BINARY.is_file():
        parser.error(f"there is no '{BINARY}'; make build makes it")
    try:
        tokens = Tokenizer.from_gguf(options.model)
    except (OSError, ValueError) as error:
        parser.error(f"cannot read '{options.model}': {error}")
    size = options.model.stat().st_size
    arguments = ["-c", str(CONTEXT), "-np", "1", "-t", str(options.threads)]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with Server(arguments, directory=directory, model=options.model) as server:
            results = measure(server, tokens, options.share)
    print(f"{options.model.name}, {size:,} bytes, greedy, exact match\n\n| asked | right | |\n|---|---|---|")
    for result in results:
        print(result)
        if options.wrong:
            for question, expected, answer in result.wrong:
                print(f"    {question!r}: {answer!r} instead of {expected!r}", file=sys.stderr)


if __name__ == "__main__":
    main()
