"""What a model is made to say on each route, and what a client reads of it, whole or streamed."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.server.completions import BODIES

# A model that thinks and then says: what `grammar` makes of it is parted by this template.
TEMPLATE = """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content or '' }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

THINKING = ("/v1/chat/completions", "/v1/responses")
SAYING = ("/completion", "/v1/completions", *THINKING)
"""The routes that take a grammar."""


def template_options(directory: Path) -> list[str]:
    """Options of a server whose model thinks."""
    path = directory / "thinking.jinja"
    path.write_text(TEMPLATE, encoding="utf-8")
    return ["--jinja", "--chat-template-file", str(path), "--reasoning-format", "deepseek"]


def asking(route: str, said: str, thought: str = "", **fields: Any) -> dict[str, Any]:
    """The body of a request to which the model says this, and thinks that before."""
    text = f"<think>\n{thought}\n</think>\n\n{said}" if thought else said
    written = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    limits = {"max_tokens": 400, "n_predict": 400, "max_output_tokens": 400}
    return {**BODIES[route], **limits, "temperature": 0, "grammar": f'root ::= "{written}"', **fields}


def read(answer: Any) -> list[str]:
    """The texts of a whole answer: what each choice thinks, and says."""
    if isinstance(answer, list):
        return [text for one in answer for text in read(one)]
    if "choices" in answer:
        messages = [choice.get("message", {"content": choice.get("text")}) for choice in answer["choices"]]
        return [text for one in messages for text in (one.get("reasoning_content"), one["content"]) if text]
    parts = answer.get("output", [answer])
    blocks = [block for part in parts for block in _blocks(part["content"])]
    return [block.get("text") or block.get("thinking") or "" for block in blocks]


def read_stream(events: list[Any]) -> list[str]:
    """The same of the events of a stream."""
    texts: defaultdict[Any, str] = defaultdict(str)
    for event in events:
        for key, piece in _pieces(event):
            texts[key] += piece
    return [text for _, text in sorted(texts.items())]


def told_again(events: list[Any]) -> Iterator[str]:
    """The whole texts that the last events of a stream of /v1/responses tell again."""
    for event in events:
        if event.get("type") == "response.output_text.done":
            yield event["text"]
        elif event.get("type") == "response.content_part.done":
            yield event["part"]["text"]
        elif event.get("type") == "response.output_item.done":
            yield from read({"output": [event["item"]]})
        elif event.get("type") == "response.completed":
            yield from read(event["response"])


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"text": content}] if isinstance(content, str) else content


def _pieces(event: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    kind = event.get("type", "")
    if kind == "response.reasoning_text.delta":
        yield (0, 0), event["delta"]
    elif kind == "response.output_text.delta":
        yield (0, 1), event["delta"]
    elif kind == "content_block_delta":
        yield (event["index"], 0), event["delta"].get("text") or event["delta"].get("thinking") or ""
    elif "content" in event:
        yield (event["index"], 0), event["content"]
    for choice in event.get("choices", ()):
        delta = choice.get("delta", {})
        for place, text in enumerate(
            (delta.get("reasoning_content"), delta.get("content"), choice.get("text"))
        ):
            if text is not None:
                yield (choice["index"], place), text
