"""What programs that work with tools send, by each of the ways to ask for a chat, and what slots get."""

from pathlib import Path
from typing import Any

from tests.server.conversations import ONE_THREAD, memory_options
from tests.server.harness import STOCK_BINARY, Server

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
# Tokens: what a turn may have more than the next one's prompt has of it, as its end is written anew.
SEAM = 8
SHOWS_PROMPTS = {"LLAMA_SERVER_SLOTS_DEBUG": "1"}

Json = dict[str, Any]

TEMPLATE = """
{%- if tools %}<tools>{{ tools | tojson }}</tools>{% endif -%}
{%- for m in messages -%}
<|{{ m.role }}|>
{%- if m.content is string %}{{ m.content }}{% endif -%}
{%- if m.content is not string %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif -%}
{%- for call in m.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor -%}
<|end|>
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>{% endif -%}
"""


def body_of(route: str, system: list[str], messages: list[Json], **fields: Any) -> Json:
    """A request with these blocks of instructions, as clients of the route and proxies send them."""
    common: Json = {"temperature": 0, "seed": 1, **fields}
    if route == RESPONSES:
        return {"instructions": "\n".join(system), "input": messages, "max_output_tokens": 12, **common}
    blocks = [{"type": "text", "text": text} for text in system]
    if route == MESSAGES:
        return {"system": blocks, "messages": messages, "max_tokens": 12, **common}
    return {"messages": [{"role": "system", "content": blocks}, *messages], "max_tokens": 12, **common}


def answered(server: Server, route: str, body: Json) -> Json:
    response = server.post(route, body)
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    return answer


def said(route: str, role: str, text: str) -> Json:
    """A message; /v1/responses takes the model's own only as it gave them."""
    if route == RESPONSES and role == "assistant":
        return {"type": "message", "role": role, "content": [{"type": "output_text", "text": text}]}
    return {"role": role, "content": text}


def settle(server: Server, *, is_on: bool) -> None:
    response = server.post("/v1/atlas/config", {"settings": {"normalize_prompts": is_on}})
    assert response.status_code == 200, response.text


def prompts(server: Server) -> list[str]:
    """What the slots were given last."""
    return [slot["prompt"] for slot in server.get("/slots").json() if slot.get("prompt")]


def servers(directory: Path) -> tuple[Server, Server]:
    """Ours, and stock, not started; both show their prompts."""
    template = directory / "calls.jinja"
    template.write_text(TEMPLATE.strip(), encoding="utf-8")
    common: list[str | Path] = ["--jinja", "--chat-template-file", template, "-c", "16384"]
    ours = Server([*memory_options(directory), *common], SHOWS_PROMPTS, directory=directory)
    stock = [*ONE_THREAD, *common]
    return ours, Server(stock, SHOWS_PROMPTS, directory=directory, binary=STOCK_BINARY)
