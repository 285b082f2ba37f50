# mypy: ignore-errors
"""Anthropic's SDK, whose clients send the whole conversation: of one turn, as clients.py starts it."""

import json
import sys

from anthropic import Anthropic

url, turn, before = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = Anthropic(base_url=url.removesuffix("/v1"), api_key="none", max_retries=0)
SYSTEM = [{"type": "text", "text": "Be brief. " * 40, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
asked = {"role": "user", "content": "My name is Nora. I live in Oslo."}


def say(messages: list[dict[str, object]]) -> object:
    return client.messages.create(
        model="any", max_tokens=32, system=SYSTEM, messages=messages, extra_body={"temperature": 0}
    )


if turn == "first":
    answer = say([asked])
    print(json.dumps([answer.content[0].text, answer.usage.input_tokens]))
else:
    said = {"role": "assistant", "content": before[0]}
    answer = say([asked, said, {"role": "user", "content": "What is my name?"}])
    print(json.dumps([answer.content[0].text, answer.usage.cache_read_input_tokens]))
