"""Requests made from GET /v1/atlas/openapi.json, right and wrong ones: the answers are as it says."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import BaseSchema, Case, CheckFunction, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.server.completions import BODIES
from tests.server.conversations import memory_options
from tests.server.harness import Server

DOCUMENT = "/v1/atlas/openapi.json"
OURS = [
    "DELETE /v1/chat/completions/{completion_id}",
    "DELETE /v1/conversations/{conversation_id}",
    "DELETE /v1/conversations/{conversation_id}/items/{item_id}",
    "DELETE /v1/responses/{response_id}",
    "GET /v1/atlas/config",
    "GET /v1/atlas/dashboard",
    "GET /v1/atlas/debug/stacks",
    "GET /v1/atlas/metrics",
    "GET /v1/atlas/metrics/prometheus",
    "GET /v1/atlas/openapi.json",
    "GET /v1/atlas/plugins",
    "GET /v1/atlas/requests",
    "GET /v1/atlas/status",
    "GET /v1/chat/completions",
    "GET /v1/chat/completions/{completion_id}",
    "GET /v1/chat/completions/{completion_id}/messages",
    "GET /v1/conversations/{conversation_id}",
    "GET /v1/conversations/{conversation_id}/items",
    "GET /v1/conversations/{conversation_id}/items/{item_id}",
    "GET /v1/responses/{response_id}",
    "GET /v1/responses/{response_id}/input_items",
    "POST /v1/atlas/config",
    "POST /v1/atlas/memory/delete",
    "POST /v1/atlas/memory/flush",
    "POST /v1/atlas/memory/list",
    "POST /v1/atlas/memory/load",
    "POST /v1/atlas/memory/pin",
    "POST /v1/atlas/memory/save",
    "POST /v1/atlas/memory/unpin",
    "POST /v1/atlas/plugins/reload",
    "POST /v1/atlas/plugins/{name}/enable",
    "POST /v1/chat/completions/{completion_id}",
    "POST /v1/conversations",
    "POST /v1/conversations/{conversation_id}",
    "POST /v1/conversations/{conversation_id}/items",
    "POST /v1/responses/{response_id}/cancel",
]
COMPLETIONS = [path for path in BODIES if path in ("/completion", "/v1/completions") or "/v1/" in path]

# What the description does not say: names and limits of settings, what a cursor looks like, kinds of items.
SAYS_LESS = ("POST /v1/atlas/config", "POST /v1/atlas/memory/list", "POST /v1/conversations")

BOUNDED = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    """The description, from a server that stays."""
    directory = tmp_path_factory.mktemp("described")
    with Server(memory_options(directory), directory=directory) as running:
        yield schemathesis.openapi.from_url(f"{running.url}{DOCUMENT}")


def test_all_operations_are_tested(schema: BaseSchema) -> None:
    labels = [schema[path][method].label for path in schema for method in schema[path]]
    not_here = ["GET /v1/atlas/metrics/stream", "POST /infill"]  # has no end; needs another model
    assert sorted(labels) == sorted([*OURS, *not_here, *(f"POST {path}" for path in COMPLETIONS)])


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", OURS)
def test_answers_are_as_described(schema: BaseSchema, label: str, mode: GenerationMode) -> None:
    method, path = label.split()
    operation = schema[path][method]
    if mode is GenerationMode.NEGATIVE and operation.body.items == []:
        return  # it takes nothing that could be wrong

    @BOUNDED
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case[Any]) -> None:
        excluded: list[CheckFunction] | None = [positive_data_acceptance] if label in SAYS_LESS else []
        case.call_and_validate(headers={"Connection": "close"}, excluded_checks=excluded, timeout=60)

    check()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", COMPLETIONS)
def test_completions_are_as_described(schema: BaseSchema, path: str, mode: GenerationMode) -> None:
    operation = schema[path]["POST"]

    @BOUNDED
    @given(case=operation.as_strategy(generation_mode=mode), stream=st.booleans())
    def check(case: Case[Any], stream: bool) -> None:
        if isinstance(case.body, dict) and "atlas" in case.body:
            # the rest of the body is llama-server's, and not described
            case.body = {**BODIES[path], "stream": stream, "atlas": case.body["atlas"]}
            case.call_and_validate(
                headers={"Connection": "close"}, excluded_checks=[positive_data_acceptance], timeout=60
            )

    check()
