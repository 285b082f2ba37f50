# mypy: ignore-errors
"""OpenAI's SDK: responses, conversations, chat completions. One turn, as clients.py starts it."""

import json
import sys

from openai import OpenAI

url, turn, before = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = OpenAI(base_url=url, api_key="none", max_retries=0)
GREEDY = {"model": "any", "temperature": 0, "max_output_tokens": 32}

if turn == "first":
    response = client.responses.create(input="My name is Nora. I live in Oslo.", **GREEDY)
    conversation = client.conversations.create(metadata={"topic": "names"})
    client.responses.create(input="My name is Boris.", conversation=conversation.id, **GREEDY)
    completion = client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": "My name is Emma."}], store=True, max_tokens=16
    )
    print(json.dumps([response.id, conversation.id, completion.id]))
else:
    response_id, conversation_id, completion_id = before
    with client.responses.stream(
        input="What is my name?", previous_response_id=response_id, **GREEDY
    ) as stream:
        named = stream.get_final_response().output_text
    answer = client.responses.create(input="What is my name?", conversation=conversation_id, **GREEDY)
    kept = client.chat.completions.retrieve(completion_id)
    listed = [one.id for one in client.chat.completions.list()]
    items = [item.type for item in client.conversations.items.list(conversation_id, order="asc")]
    print(json.dumps([named, answer.output_text, kept.id in listed, items]))
