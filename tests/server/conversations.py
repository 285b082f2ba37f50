"""Conversations with the demo model, and what the server says about its memory of them.

The demo model answers questions about names and cities with near certainty, so a greedy answer is the same
however the prompt was cut into batches, and it tells which conversation the server had before it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.server.harness import Server, stream_events

_NAMES = "Tovi Nora Bela Mila Omar Lena Ivan Ruth Hugo Anna Paul Emma Carl Lucy Theo Vera Noah Iris Finn Zoe"
_CITIES = (
    "Paris Lima Oslo Rome Cairo Tokyo Berlin Madrid Prague Vienna "
    "Dublin Athens Lisbon London Boston Sydney Kyoto Milan Delhi Quito"
)
NAMES = _NAMES.split()
CITIES = _CITIES.split()
ASK_NAME = "What is my name?"
ASK_CITY = "Where do I live?"

GREEDY = {"temperature": 0, "max_tokens": 16, "seed": 1}
COLD = {"cache_prompt": False}

# On a busy machine the threads of a batch wait for each other far longer than they compute.
ONE_THREAD = ["-t", "1"]

# Of a state found again, at least this part has to be reused.
REUSED = 0.9

Message = dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What a chat completion came to; all numbers but the layer are tokens."""

    text: str
    prompt: int
    total: int
    reused: int
    layer: int | None
    reason: str | None

    def recalls(self, earlier: "Answer") -> bool:
        """Whether the conversation up to and with the earlier answer was reused."""
        return self.reused >= REUSED * earlier.total


def filler(n_items: int) -> str:
    """Text of about nine tokens an item."""
    return " ".join(f"Item {number} is red." for number in range(n_items))


def chat(server: Server, messages: list[Message], **fields: Any) -> Answer:
    """The answer to a chat completion, which must succeed."""
    response = server.post("/v1/chat/completions", {"messages": messages, **GREEDY, **fields})
    assert response.status_code == 200, response.text
    body = response.json()
    timings, atlas = body["timings"], body.get("atlas", {})
    prompt = timings["cache_n"] + timings["prompt_n"]
    return Answer(
        text=body["choices"][0]["message"]["content"],
        prompt=prompt,
        total=prompt + timings["predicted_n"],
        reused=timings["cache_n"],
        layer=atlas.get("layer"),
        reason=atlas.get("reason"),
    )


def cold_chat(server: Server, messages: list[Message], **fields: Any) -> Answer:
    """The answer of a server that computes the whole prompt."""
    answer = chat(server, messages, **COLD, **fields)
    assert answer.reused == 0
    return answer


class Conversation:
    """Somebody tells a name and a city, in about 30 tokens and 9 for each item, and may be asked about them.

    Numbers from 0 to 399 give different names or cities, so that no two share more than their first words.
    """

    def __init__(self, number: int, n_items: int = 35, system: str = "") -> None:
        self.name = NAMES[number % len(NAMES)]
        city = CITIES[(number + number // len(NAMES)) % len(CITIES)]
        self.messages: list[Message] = [{"role": "system", "content": system}] if system else []
        self.messages += [
            {"role": "user", "content": f"My name is {self.name}. I live in {city}. {filler(n_items)}"},
            {"role": "assistant", "content": f"Nice to meet you, {self.name}!"},
        ]

    def asking(self, question: str) -> list[Message]:
        """All messages so far and the question."""
        return [*self.messages, {"role": "user", "content": question}]

    def ask(self, server: Server, question: str = ASK_NAME, **fields: Any) -> Answer:
        """Ask, and keep question and answer as part of the conversation."""
        messages = self.asking(question)
        answer = chat(server, messages, **fields)
        self.messages = [*messages, {"role": "assistant", "content": answer.text}]
        return answer


@dataclass(frozen=True)
class Api:
    """One of the ways to ask for a completion."""

    path: str
    body: Callable[[Server, list[Message]], dict[str, Any]]
    text: Callable[[Any], str]
    piece: Callable[[Any], str]

    def ask(self, server: Server, messages: list[Message], *, stream: bool, **fields: Any) -> tuple[str, int]:
        """The text of the answer, and how many tokens of the prompt were reused."""
        body = {**self.body(server, messages), **GREEDY, **fields, "stream": stream}
        response = server.post(self.path, body)
        assert response.status_code == 200, response.text
        if not stream:
            return self.text(response.json()), max(reused_tokens(response.json()))
        events = stream_events(response.text)
        return "".join(self.piece(event) for event in events), max(reused_tokens(events))


def reused_tokens(document: Any) -> Iterator[int]:
    """Every number in an answer that says so, under the names that the APIs have for it."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in ("cache_n", "cache_read_input_tokens", "cached_tokens"):
                yield value
            yield from reused_tokens(value)
    elif isinstance(document, list):
        for value in document:
            yield from reused_tokens(value)


def render(server: Server, messages: list[Message]) -> str:
    """The messages as the one text that the model sees."""
    prompt: str = server.post("/apply-template", {"messages": messages}).json()["prompt"]
    return prompt


def tokenize(server: Server, text: str) -> list[int]:
    """The tokens of a text, special ones as well."""
    body = {"content": text, "add_special": True, "parse_special": True}
    tokens: list[int] = server.post("/tokenize", body).json()["tokens"]
    return tokens


def _prompt_body(server: Server, messages: list[Message]) -> dict[str, Any]:
    return {"prompt": render(server, messages), "n_predict": GREEDY["max_tokens"]}


def _messages_body(_: Server, messages: list[Message]) -> dict[str, Any]:
    return {"messages": messages}


APIS = {
    "chat": Api(
        "/v1/chat/completions",
        _messages_body,
        lambda answer: answer["choices"][0]["message"]["content"],
        lambda event: event["choices"][0]["delta"].get("content") or "",
    ),
    "text": Api(
        "/v1/completions",
        _prompt_body,
        lambda answer: answer["choices"][0]["text"],
        lambda event: event["choices"][0]["text"],
    ),
    "completion": Api(
        "/completion", _prompt_body, lambda answer: answer["content"], lambda event: event["content"]
    ),
    "messages": Api(
        "/v1/messages",
        _messages_body,
        lambda answer: answer["content"][0]["text"],
        lambda event: event.get("delta", {}).get("text", ""),
    ),
    "responses": Api(
        "/v1/responses",
        lambda _, messages: {
            "input": [{"type": "message", **message} for message in messages],
            "max_output_tokens": GREEDY["max_tokens"],
        },
        lambda answer: answer["output"][0]["content"][0]["text"],
        lambda event: event["delta"] if event["type"] == "response.output_text.delta" else "",
    ),
}


def memory_options(directory: Path) -> list[str | Path]:
    """Options of a server that keeps its memory in that directory's `memory`."""
    return [*ONE_THREAD, "--atlas-memory-path", directory / "memory"]


def memory_status(server: Server) -> Any:
    """data.memory of the status; None when there is no memory."""
    return server.get("/v1/atlas/status").json()["data"]["memory"]


def flush(server: Server) -> None:
    """Wait until all that was answered before is durable."""
    response = server.post("/v1/atlas/memory/flush", {"timeout_s": 30})
    assert response.status_code == 200, response.text


# For tests of what is read from disk when it is asked for: else RAM has it by then.
NO_PRELOADING = ["--atlas-preload-size", "0"]


def wait_for_memory(server: Server) -> None:
    """Wait until a server that was started knows all files, and has in RAM what it reads unasked."""
    server.wait_until(lambda: memory_status(server)["preloaded"]["complete"])


def kill_and_start(server: Server) -> None:
    """kill -9, and the same server again, once its memory is ready."""
    server.kill()
    server.start()
    wait_for_memory(server)


def block_files(directory: Path) -> list[Path]:
    """The files of state below a memory path, smallest first."""
    return sorted(directory.rglob("*.kv"), key=lambda path: (path.stat().st_size, path))
