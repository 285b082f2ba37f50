"""The official OpenAI SDK, unchanged, against the server."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.server.harness import Server

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "My name is Ada."}]
EXTRA = {"atlas": {"session_id": "ada", "memory_layers": 3}}


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def atlas_of(answer: Any) -> dict[str, Any]:
    """The object that the SDK's types do not know."""
    atlas: dict[str, Any] = answer.atlas
    return atlas


def test_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="any", messages=MESSAGES, max_completion_tokens=4, extra_body=EXTRA
    )
    assert answer.choices[0].message.content
    assert answer.usage
    atlas = atlas_of(answer)
    assert (atlas["session_id"], atlas["memory_layers"]) == ("ada", 3)
    assert atlas["prompt_tokens"] == answer.usage.prompt_tokens


def test_streamed_chat(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="any", messages=MESSAGES, max_completion_tokens=4, stream=True, extra_body=EXTRA
        )
    )
    assert [chunk for chunk in chunks if hasattr(chunk, "atlas")] == chunks[-1:]
    assert atlas_of(chunks[-1])["session_id"] == "ada"


def test_completion(client: OpenAI) -> None:
    answer = client.completions.create(model="any", prompt="Hello", max_tokens=4, extra_body=EXTRA)
    assert atlas_of(answer)["session_id"] == "ada"


def test_responses(client: OpenAI) -> None:
    answer = client.responses.create(model="any", input="Hello", max_output_tokens=4, extra_body=EXTRA)
    assert answer.output_text
    assert atlas_of(answer)["session_id"] == "ada"


def test_streamed_responses(client: OpenAI) -> None:
    events = list(
        client.responses.create(
            model="any", input="Hello", max_output_tokens=4, stream=True, extra_body=EXTRA
        )
    )
    last = events[-1]
    assert last.type == "response.completed"
    assert atlas_of(last.response)["session_id"] == "ada"


@pytest.mark.parametrize("stream", [False, True])
def test_error(client: OpenAI, stream: bool) -> None:
    with pytest.raises(
        openai.BadRequestError, match=r"'atlas\.memory_layers': value must be between 1 and 10"
    ):
        client.chat.completions.create(
            model="any", messages=MESSAGES, stream=stream, extra_body={"atlas": {"memory_layers": 11}}
        )
