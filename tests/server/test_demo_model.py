"""The demo model that is shipped remembers; `make evaluate-demo-model` has the figures."""

from pathlib import Path

from demo_model import evaluation
from demo_model.evaluation_dialogues import known_fact, unknown_fact
from demo_model.tokenizer import Tokenizer
from tests.server.harness import MODEL, Server

TOKENS = Tokenizer.from_gguf(MODEL)


def test_the_shipped_model_recalls_what_it_was_told_and_only_that(tmp_path: Path) -> None:
    with Server(["-np", "1", "-c", "2048"], directory=tmp_path) as server:
        chat = evaluation.chat_with(server)
        results = [
            evaluation.compare_tokens(server, TOKENS),
            evaluation.ask_cases("near", chat, [known_fact(TOKENS, n, 100) for n in range(20)]),
            evaluation.ask_cases("far", chat, [known_fact(TOKENS, n, 1500) for n in range(20)]),
            evaluation.ask_cases("ordinary", chat, [known_fact(TOKENS, n, 1500, True) for n in range(20)]),
            evaluation.ask_cases("never told", chat, [unknown_fact(TOKENS, n, 500) for n in range(20)]),
        ]
    same_tokens, near, far, ordinary, never_told = results
    assert same_tokens.right == same_tokens.asked
    assert all("not told me" in answer for _, _, answer in never_told.wrong)
    # other processors round otherwise, which costs an answer now and then
    for recalled in (near, far, ordinary, never_told):
        assert recalled.right >= 17, recalled.wrong
