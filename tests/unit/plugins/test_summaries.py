"""The ready-made plugin `summaries`, without a server: a token is a word."""

from pathlib import Path
from typing import Any

import pytest

from atlas_plugin import CompletionRequest
from atlas_plugin.testing import Application, FakeHost

N_CONTEXT = 200
ROUTE = "/v1/chat/completions"
SYSTEM = {"role": "system", "content": "Be kind."}
WORDS = "word " * 19


def turns(n: int) -> list[dict[str, Any]]:
    """n questions with answers, 40 words each, and a last question."""
    said = [{"role": role, "content": f"{i} {WORDS}"} for i in range(n) for role in ("user", "assistant")]
    return [*said, {"role": "user", "content": "last"}]


class Model:
    """Counts words, and writes summaries of one word, which says how many it wrote."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.vocabulary: list[str] = []

    def tokens(self, text: str) -> dict[str, Any]:
        self.vocabulary += text.split()
        return {"tokens": list(range(len(self.vocabulary) - len(text.split()), len(self.vocabulary)))}

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        self.orders.append(body["messages"][0]["content"])
        return {"choices": [{"message": {"content": f"summary-{len(self.orders)}"}}]}

    def host(self, **settings: Any) -> FakeHost:
        host = FakeHost(plugins=["summaries"], **settings)
        host.answers = {
            "/props": {"default_generation_settings": {"n_ctx": N_CONTEXT}},
            f"{ROUTE}/input_tokens": lambda body: {
                "input_tokens": sum(len(str(one["content"]).split()) for one in body["messages"])
            },
            "/tokenize": lambda body: self.tokens(body["content"]),
            "/detokenize": lambda body: {"content": " ".join(self.vocabulary[i] for i in body["tokens"])},
            ROUTE: self.complete,
        }
        return host


@pytest.fixture
def model() -> Model:
    return Model()


def ask(application: Application, messages: Any, route: str = ROUTE, **fields: Any) -> Any:
    request = CompletionRequest(route, "r1", tenant=fields.pop("tenant", ""))
    asked = application.ask("on_request", request, {"messages": messages, **fields})
    assert asked.failed == ()
    return asked.value["messages"]


def test_a_short_chat_is_left_alone(model: Model) -> None:
    with Application(model.host()) as application:
        assert ask(application, [SYSTEM, *turns(3)]) == [SYSTEM, *turns(3)]
        # And no word of it is counted.
        assert ask(application, turns(1)) == turns(1)
    assert model.orders == []


def test_the_beginning_becomes_a_summary(model: Model) -> None:
    chat = [SYSTEM, *turns(5)]
    with Application(model.host()) as application:
        shorter = ask(application, chat)
    content = "Be kind.\n\nSummary of the conversation so far:\nsummary-1"
    assert shorter == [{"role": "system", "content": content}, *chat[5:]]
    assert len(shorter) == 1 + 7
    [order] = model.orders
    assert "user: 0 word" in order
    assert "user: 2 word" not in order


def test_a_chat_without_instructions_gets_one(model: Model) -> None:
    with Application(model.host()) as application:
        first, *rest = ask(application, turns(5))
    assert first["role"] == "system"
    assert first["content"].endswith("summary-1")
    assert rest == turns(5)[4:]


def test_the_same_summary_until_it_is_too_long_again(model: Model) -> None:
    """So that what the model has of the prompt stays its beginning."""
    with Application(model.host()) as application:
        first = ask(application, turns(5))
        grown = ask(application, [*turns(5), {"role": "assistant", "content": "so"}, *turns(0)])
        assert grown[: len(first)] == first
        assert len(model.orders) == 1
        again = ask(application, turns(7))
        assert again[0]["content"].endswith("summary-2")
    # Of what was summarised before and what came since, and not of all of it.
    assert "summary-1" in model.orders[1]
    assert "user: 0 word" not in model.orders[1]


def test_a_chat_longer_than_the_context(model: Model) -> None:
    """It is summarised piece by piece."""
    with Application(model.host()) as application:
        shorter = ask(application, turns(20))
    assert len(model.orders) > 1
    assert shorter[0]["content"].endswith(f"summary-{len(model.orders)}")


def test_summaries_are_kept_for_the_next_server(model: Model, tmp_path: Path) -> None:
    settings = {"memory_save_path": str(tmp_path)}
    with Application(model.host(**settings)) as application:
        first = ask(application, turns(5), tenant="ab" * 8)
    with Application(model.host(**settings)) as application:
        assert ask(application, turns(5), tenant="ab" * 8) == first
        assert len(model.orders) == 1
        # Of another tenant nothing is known.
        ask(application, turns(5), tenant="cd" * 8)
        assert len(model.orders) == 2
        host = model.host(**settings)
        host.routes = application.handle
        ask(application, turns(8), tenant="ab" * 8)
        assert len(host.memory.list(tenant="ab" * 8)["contexts"]) == 1


@pytest.mark.parametrize(
    ("route", "messages", "fields"),
    [
        ("/completion", turns(8), {}),
        (ROUTE, turns(8), {"atlas": {"session_id": "s", "history": "server"}}),
        (ROUTE, "text", {}),
        (ROUTE, [1, 2], {}),
        (ROUTE, None, {}),
        (ROUTE, [{"role": "user", "content": WORDS * 20}], {}),
    ],
)
def test_what_it_leaves_alone(model: Model, route: str, messages: Any, fields: dict[str, Any]) -> None:
    with Application(model.host()) as application:
        assert ask(application, messages, route, **fields) == messages
    assert model.orders == []


def test_parts_and_calls_of_tools_are_text(model: Model) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "in a part"}, {"type": "image_url"}]}
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "weather"}}]}
    with Application(model.host()) as application:
        ask(application, [parts, call, *turns(5)])
    assert "in a part" in model.orders[0]
    assert "weather" in model.orders[0]


def test_an_empty_summary_takes_nothing_away(model: Model) -> None:
    host = model.host()
    host.answers[ROUTE] = {"choices": [{"message": {"content": " "}}]}
    with Application(host) as application:
        asked = application.ask("on_request", CompletionRequest(ROUTE, "r1"), {"messages": turns(5)})
    assert asked.value["messages"] == turns(5)
    assert "the model gave an empty summary" in asked.failed[0]
