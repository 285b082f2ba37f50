"""The load generator: `python -m load.benchmark.client` reads plans as JSON lines and answers with outcomes.

A process of its own, so that its work is on no core or lock of those who measure. Equal plans send equal
requests, whatever the order in which answers come.
"""

import asyncio
import random
import sys
import time
from itertools import pairwise
from typing import Any

import httpx
import msgspec

MAX_TOKENS = 16
_TEXT = "My name is Nora and I live in Oslo. What is my name? Where do I live? Item one is red, two is blue."
WORDS = _TEXT.split()
MIN_WORDS, MAX_WORDS = 20, 60


class Plan(msgspec.Struct):
    """`requests` chats sent to `url` by so many `clients`, each of which waits for its answer.

    With `atlas` they carry that object, and a session for each client; `padding` is bytes more in each body.
    """

    url: str
    clients: int
    requests: int
    seed: int
    stream: bool = False
    atlas: dict[str, Any] | None = None
    max_tokens: int = MAX_TOKENS
    padding: int = 0


class Outcome(msgspec.Struct):
    """Times by request, in the order of answers; `error` says what ended the plan early, if anything did.

    `gap_ms` are between the tokens of streamed answers; `overhead_ms` is what the server says in `atlas`.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    latency_ms: list[float] = []
    first_token_ms: list[float] = []
    gap_ms: list[float] = []
    overhead_ms: list[float] = []
    error: str = ""

    def add(self, other: "Outcome") -> None:
        """Take on what came of another plan, carried out after this one."""
        for name in ("seconds", "cpu_seconds", "latency_ms", "first_token_ms", "gap_ms", "overhead_ms"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def body_of(plan: Plan, number: int, client: int) -> dict[str, Any]:
    """The request of that number, as `client` sends it."""
    source = random.Random(f"{plan.seed} {number}")
    text = " ".join(source.choices(WORDS, k=source.randint(MIN_WORDS, MAX_WORDS)))
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": plan.max_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": plan.stream,
    }
    if plan.padding:
        body["user"] = "x" * plan.padding
    if plan.atlas is not None:
        body["atlas"] = plan.atlas | {"session_id": f"client-{client}"}
    return body


async def _ask(session: httpx.AsyncClient, body: dict[str, Any], outcome: Outcome) -> None:
    began = time.perf_counter()
    events: list[tuple[float, str]] = []
    async with session.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError(f"status {response.status_code}: {(await response.aread()).decode()}")
        if body["stream"]:
            async for line in response.aiter_lines():
                events.append((time.perf_counter(), line))
        else:
            events.append((0.0, "data: " + (await response.aread()).decode()))
    outcome.latency_ms.append((time.perf_counter() - began) * 1e3)
    times = []
    for when, line in events:
        if not line.startswith("data: {"):
            continue
        document = msgspec.json.decode(line.removeprefix("data: "))
        if any("content" in choice.get("delta", ()) for choice in document.get("choices", ())):
            times.append(when)
        if "atlas" in document:
            outcome.overhead_ms.append(document["atlas"]["overhead_ms"])
    if times:
        outcome.first_token_ms.append((times[0] - began) * 1e3)
        outcome.gap_ms += [(after - before) * 1e3 for before, after in pairwise(times)]


async def carry_out(plan: Plan) -> Outcome:
    """Send all requests of a plan."""
    outcome = Outcome()
    numbers = iter(range(plan.requests))
    # llama-server closes some connections after a streamed answer while the next request is on its way.
    headers = {"Connection": "close"}
    async with httpx.AsyncClient(base_url=plan.url, timeout=600, headers=headers, trust_env=False) as session:

        async def work(client: int) -> None:
            for number in numbers:
                await _ask(session, body_of(plan, number, client), outcome)

        began, cpu = time.perf_counter(), time.process_time()
        try:
            await asyncio.gather(*map(work, range(plan.clients)))
        except (httpx.HTTPError, RuntimeError) as error:
            outcome.error = f"{type(error).__name__}: {error}"
        outcome.seconds, outcome.cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return outcome


def main() -> None:
    """Plans from standard input, outcomes to standard output, until the input ends."""
    for line in sys.stdin.buffer:
        outcome = asyncio.run(carry_out(msgspec.json.decode(line, type=Plan)))
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
