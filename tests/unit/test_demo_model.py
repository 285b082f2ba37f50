"""The dialogues that the demo model is trained on and measured with, its tokenizer, and its file."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo_model import evaluation_dialogues, gguf_file, names, tokenizer
from demo_model.dialogues import Told, Turn, Writer
from demo_model.evaluation import invented
from demo_model.facts import FACTS
from demo_model.tokenizer import Tokenizer

TOKENS = tokenizer.build()


def dialogues(count: int, length: int = 400) -> list[list[Turn]]:
    writer = Writer(random.Random(11))
    return [writer.dialogue(length, TOKENS.count, distant=0.5) for _ in range(count)]


def test_training_never_sees_the_names_of_the_evaluation() -> None:
    rng = random.Random(1)
    training = {names.sample(rng) for _ in range(20_000)}
    evaluation = {names.sample(rng, held_out=True) for _ in range(2_000)}
    assert not training & evaluation
    assert not training & set(names.ORDINARY)
    assert len(evaluation) > 1_500


def test_dialogues_have_at_most_the_tokens_asked_for_and_not_many_less() -> None:
    lengths = [len(TOKENS.render(turns)[0]) for turns in dialogues(50)]
    assert max(lengths) <= 400
    assert min(lengths) > 300


def test_the_same_seed_makes_the_same_dialogues() -> None:
    assert dialogues(5) == dialogues(5)


def test_every_recalled_value_was_said_before() -> None:
    recalled = 0
    for turns in dialogues(100):
        said = ""
        for turn in turns:
            if turn.role == "user":
                said += turn.text + "\n"
            elif turn.recalls and turn.text.startswith("Your best friend is ") and turn.text.count(".") == 1:
                recalled += 1
                assert turn.text.removeprefix("Your best friend is ").removesuffix(".") in said
    assert recalled > 20


@pytest.mark.parametrize("distance", [200, 700, 1500])
@pytest.mark.parametrize("ordinary", [False, True])
def test_facts_of_the_evaluation_are_at_the_distance_asked_for(distance: int, ordinary: bool) -> None:
    for seed in range(30):
        case = evaluation_dialogues.known_fact(TOKENS, seed, distance, ordinary)
        value = case.told.values[case.key]
        told_at = [n for n, turn in enumerate(case.turns[:-2]) if turn.role == "user" and value in turn.text]
        after = [sum(TOKENS.count(turn.text) + 2 for turn in case.turns[n + 1 : -2]) for n in told_at]
        assert case.distance in after
        assert distance <= case.distance < distance + 8
        assert value in case.answer
        assert not ordinary or value in names.ORDINARY


def test_facts_never_told_are_not_told() -> None:
    for seed in range(30):
        case = evaluation_dialogues.unknown_fact(TOKENS, seed, 100)
        assert "You have not told me" in case.answer
        assert case.key not in case.told.values


def test_what_is_invented_is_found() -> None:
    case = evaluation_dialogues.summary(TOKENS, seed=4, distance=50)
    case = case._replace(told=Told({"name": "Tovi", "city": "Oslo"}))
    assert not invented(case, "Your name is Tovi. You live in Oslo.")
    assert not invented(case, "Your name is Tovi.")
    assert invented(case, "Your name is Tovi. You live in Bergen.")
    assert invented(case, "Your name is Tovi. You work as a baker.")


def test_all_facts_have_a_value_to_answer_with() -> None:
    for key, fact in FACTS.items():
        assert "{value}" in fact.answer, key
        for text in fact.statements + fact.corrections:
            assert "{value}" in text, key
        for text in (*fact.questions, fact.unknown):
            assert "{value}" not in text, key


@given(st.text())
def test_tokens_of_any_text_give_it_back(text: str) -> None:
    assert TOKENS.decode(TOKENS.encode(text)) == text.encode("utf-8", "replace").decode()


def random_weights(shape: gguf_file.Shape) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    width, hidden = shape.width, shape.hidden
    sizes = {
        "attn_norm": (width,),
        "ffn_norm": (width,),
        "attn_q": (width, width),
        "attn_k": (width, width),
        "attn_v": (width, width),
        "attn_output": (width, width),
        "ffn_gate": (hidden, width),
        "ffn_up": (hidden, width),
        "ffn_down": (width, hidden),
    }
    tensors = {"token_embd.weight": (shape.vocabulary, width), "output_norm.weight": (width,)}
    for block in range(shape.layers):
        tensors |= {f"blk.{block}.{name}.weight": size for name, size in sizes.items()}
    return {name: rng.normal(size=size).astype(np.float32) for name, size in tensors.items()}


def test_a_written_file_has_the_tokenizer_again(tmp_path: Path) -> None:
    shape = gguf_file.Shape(vocabulary=len(TOKENS.tokens), layers=1)
    gguf_file.write(tmp_path / "model.gguf", random_weights(shape), shape, TOKENS)
    assert Tokenizer.from_gguf(tmp_path / "model.gguf").merges == TOKENS.merges
