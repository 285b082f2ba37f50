# mypy: ignore-errors
"""OpenAI's Agents SDK, with its session that the server keeps: of one turn, as clients.py starts it."""

import asyncio
import json
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

url, turn, before = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])


async def main() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    agent = Agent(
        name="Assistant",
        model=OpenAIResponsesModel(model="any", openai_client=client),
        model_settings=ModelSettings(temperature=0, max_tokens=32),
    )
    if turn == "first":
        session = OpenAIConversationsSession(openai_client=client)
        await Runner.run(agent, "My name is Nora. I live in Oslo.", session=session)
        # and the server's own chain of responses
        chained = await Runner.run(agent, "My name is Boris.")
        print(json.dumps([session.session_id, chained.last_response_id]))
    else:
        session_id, response_id = before
        session = OpenAIConversationsSession(conversation_id=session_id, openai_client=client)
        named = await Runner.run(agent, "What is my name?", session=session)
        chained = await Runner.run(agent, "What is my name?", previous_response_id=response_id)
        print(json.dumps([named.final_output, chained.final_output, len(await session.get_items())]))


asyncio.run(main())
