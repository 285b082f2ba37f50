# mypy: ignore-errors
"""LangChain, which names the response it goes on from: of one turn, as clients.py starts it."""

import json
import sys

from langchain_core.load import dumpd, load
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

url, turn, before = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = ChatOpenAI(
    model="any",
    base_url=url,
    api_key="none",
    temperature=0,
    max_tokens=32,
    max_retries=0,
    use_responses_api=True,
    use_previous_response_id=True,
)

if turn == "first":
    asked = HumanMessage("My name is Nora. I live in Oslo.")
    print(json.dumps([dumpd(asked), dumpd(model.invoke([asked]))]))
else:
    said = [load(one) for one in before]
    answer = model.invoke([*said, HumanMessage("What is my name?")])
    print(json.dumps([answer.text, answer.usage_metadata["input_token_details"]["cache_read"]]))
