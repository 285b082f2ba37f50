"""Answers that a tokenizer would cut otherwise come back token by token, whatever kind of state there is."""

from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest

from tests.archs.conftest import FEW_REUSED, MANY_REUSED, wants_all
from tests.archs.test_archs import SERVER
from tests.server.conversations import NO_PRELOADING, flush, kill_and_start, reused_tokens
from tests.server.gguf_files import copy_with_letters
from tests.server.harness import Server

CONTEXT = 4096
ROUTE = "/v1/responses"
ANSWER_TOKENS = 96
# Of a prompt and its answer.
REUSED = 0.99
# What the templates of the three families have around messages.
TEMPLATES = {
    "chatml": ("<|im_start|>{role}\n{content}<|im_end|>\n", "<|im_start|>assistant\n"),
    "gemma": ("<start_of_turn>{role}\n{content}<end_of_turn>\n", "<start_of_turn>model\n"),
    "llama": ("<|header|>{role}<|end_header|>\n\n{content}<|eot|>", "<|header|>assistant<|end_header|>\n\n"),
}


def template_of(family: str) -> str:
    around, begins = TEMPLATES[family]
    role = "'model' if m.role == 'assistant' else m.role" if family == "gemma" else "m.role"
    message = around.replace("{role}", "{{ " + role + " }}").replace("{content}", "{{ m.content }}")
    # a template loses a line's end where it ends itself
    return f"{{% for m in messages %}}{message}{{% endfor %}}{begins}{{{{ '' }}}}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    few = zip([*FEW_REUSED, "llama-dense"], cycle(TEMPLATES), strict=False)
    cases = product(MANY_REUSED, TEMPLATES) if wants_all(metafunc.config) else few
    metafunc.parametrize(("name", "family"), list(cases))


def respond(server: Server, said: str, previous: str | None = None) -> Any:
    body = {"input": said, "previous_response_id": previous, "max_output_tokens": ANSWER_TOKENS}
    # vowels alone, of which the tokenizer has pairs
    vowels = {
        "logit_bias": [[vowel, 20] for vowel in "aeiou"],
        "temperature": 2,
        "seed": 1,
        "ignore_eos": True,
    }
    answer = server.post(ROUTE, body | vowels)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_after_kill_9(name: str, family: str, models: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    copy_with_letters(models / f"{name}.gguf", model, CONTEXT, pairs=True)
    template = tmp_path / "template.jinja"
    template.write_text(template_of(family), encoding="utf-8")
    options: list[str | Path] = [*SERVER, "-np", "1", "-c", str(CONTEXT)]
    options += ["--jinja", "--chat-template-file", template]
    options += ["--atlas-memory-path", tmp_path / "memory", *NO_PRELOADING]
    with Server(options, directory=tmp_path, model=model) as server:
        first = respond(server, "Tell me of letters.")
        text = first["output"][0]["content"][0]["text"]
        assert len(server.post("/tokenize", {"content": text}).json()["tokens"]) < ANSWER_TOKENS - 10
        for turn in range(2):
            flush(server)
            kill_and_start(server)
            second = respond(server, f"And of number {turn}?", first["id"])
            known = first["usage"]["input_tokens"] + first["usage"]["output_tokens"]
            assert max(reused_tokens(second)) >= REUSED * known
            first = second
