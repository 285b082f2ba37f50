"""Calls of tools come back in the model's own words, where client and template have others."""

import json
from collections.abc import Iterator

import pytest

from tests.server.agents import (
    CHAT,
    MESSAGES,
    RESPONSES,
    SEAM,
    Json,
    answered,
    body_of,
    prompts,
    said,
    servers,
    settle,
)
from tests.server.conversations import filler, reused_tokens
from tests.server.harness import Server, stream_events


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    ours, theirs = servers(tmp_path_factory.mktemp("agents"))
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def ours(both: tuple[Server, Server]) -> Server:
    return both[0]


@pytest.fixture
def theirs(both: tuple[Server, Server]) -> Server:
    return both[1]


AMOUNT = {
    "type": "object",
    "properties": {"n": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}},
    "required": ["n"],
}
# The demo model calls no tools by itself. Of what the grammar allows, it is made to choose `1e1`, and blanks.
BEGUN = '<tool_call>\n{"name": "scale", "arguments": '
CHOSEN = {"e": 60, " ": 55, ":": 50, '"': 45, "}": 40, "]": 40, ",": 35, "{": 30, "1": 20}
CHOSEN |= {"\n": -100, "-": -100}


def tools_of(route: str) -> Json:
    scale = {"name": "scale", "description": "Scales."}
    if route == MESSAGES:
        return {"tools": [{**scale, "input_schema": AMOUNT}]}
    function = {**scale, "parameters": AMOUNT}
    if route == RESPONSES:
        return {"tools": [{"type": "function", **function}]}
    return {"tools": [{"type": "function", "function": function}]}


def first_turn(route: str, question: str) -> Json:
    choice: Json = {"type": "any"} if route == MESSAGES else "required"  # type: ignore[assignment]
    begun: Json = {"role": "assistant", "content": BEGUN}
    messages = [said(route, "user", question), {"type": "message", **begun} if route == RESPONSES else begun]
    # where it would begin the next call
    stop = {"stop_sequences" if route == MESSAGES else "stop": ["} ,"]}
    forced = {"tool_choice": choice, "logit_bias": [list(item) for item in CHOSEN.items()], **stop}
    body = body_of(route, [f"Be exact. {filler(10)}"], messages, **tools_of(route), **forced)
    return {**body, "max_output_tokens" if route == RESPONSES else "max_tokens": 200}


def call_in(route: str, server: Server, body: Json, *, stream: bool) -> tuple[str, str]:
    """Id and arguments of the call that the model makes, these as JSON text."""
    response = server.post(route, {**body, "stream": stream})
    assert response.status_code == 200, response.text
    if not stream:
        if route == MESSAGES:
            [block] = [block for block in response.json()["content"] if block["type"] == "tool_use"]
            return block["id"], json.dumps(block["input"])
        if route == RESPONSES:
            [item] = [item for item in response.json()["output"] if item["type"] == "function_call"]
            return item["call_id"], item["arguments"]
        [call] = response.json()["choices"][0]["message"]["tool_calls"]
        return call["id"], call["function"]["arguments"]
    if route == MESSAGES:
        events = [event for event in stream_events(response.text) if isinstance(event, dict)]
        started = [event["content_block"] for event in events if event.get("type") == "content_block_start"]
        [made] = [block["id"] for block in started if block["type"] == "tool_use"]
        deltas = [event["delta"] for event in events if event.get("type") == "content_block_delta"]
        return made, "".join(delta.get("partial_json", "") for delta in deltas)
    pieces = [
        piece
        for event in stream_events(response.text)
        for choice in event["choices"]
        for piece in choice["delta"].get("tool_calls", [])
    ]
    return pieces[0]["id"], "".join(piece["function"].get("arguments", "") for piece in pieces)


def second_turn(route: str, first: Json, made: str, arguments: str, found: str = "It is 42.") -> Json:
    """The client sends the call back, and what the tool found."""
    common: Json = {**tools_of(route), "temperature": 0}
    if route == RESPONSES:
        asked = {"type": "function_call", "call_id": made, "name": "scale", "arguments": arguments}
        output = {"type": "function_call_output", "call_id": made, "output": f"{found} {filler(5)}"}
        items = [*first["input"][:-1], asked, output]
        return {"instructions": first["instructions"], "input": items, "max_output_tokens": 4, **common}
    messages = first["messages"][:-1]
    if route == MESSAGES:
        call: Json = {"type": "tool_use", "id": made, "name": "scale", "input": json.loads(arguments)}
        result: Json = {"type": "tool_result", "tool_use_id": made, "content": f"{found} {filler(5)}"}
        more: list[Json] = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
        body: Json = {"system": first["system"]}
    else:
        function = {"name": "scale", "arguments": arguments}
        call = {"id": made, "type": "function", "function": function}
        result = {"role": "tool", "tool_call_id": made, "content": f"{found} {filler(5)}"}
        more = [{"role": "assistant", "content": "", "tool_calls": [call]}, result]
        body = {}
    return {**body, "messages": [*messages, *more], "max_tokens": 4, **common}


def prompt_with(server: Server, found: str) -> str:
    """The prompt of the turn in which the tool found that."""
    [prompt] = {prompt for prompt in prompts(server) if found in prompt}
    return prompt


def reuse(server: Server, route: str, body: Json) -> int:
    return max(reused_tokens(answered(server, route, body)))


@pytest.mark.parametrize(
    ("route", "stream"),
    [(CHAT, False), (CHAT, True), (MESSAGES, False), (MESSAGES, True), (RESPONSES, False)],
)
def test_a_call_comes_back_as_the_model_wrote_it(
    ours: Server, theirs: Server, route: str, stream: bool
) -> None:
    """What the client and the template make of its JSON would be computed anew, and all behind it."""
    first = first_turn(route, f"How much is {route} {stream}?")
    made, arguments = call_in(route, ours, first, stream=stream)

    def body(whose: str) -> Json:
        return second_turn(route, first, made, json.dumps(json.loads(arguments)), found(whose))

    def found(whose: str) -> str:
        return f"{whose} {route} {stream} is 42."

    answered(theirs, route, body("Theirs"))
    rendered = prompt_with(theirs, found("Theirs")).replace("Theirs", "Ours")
    settle(ours, is_on=False)
    plain = reuse(ours, route, body("Off"))
    settle(ours, is_on=True)
    assert prompt_with(ours, found("Off")).replace("Off", "Ours") == rendered

    assert reuse(ours, route, body("Ours")) > plain + SEAM
    prompt = prompt_with(ours, found("Ours"))
    written, after = prompt.partition(BEGUN)[2].split("}}\n</tool_call>", 1)
    assert json.loads(written + "}") == json.loads(arguments)
    # nothing else of the prompt is another
    assert rendered.startswith(prompt.partition(BEGUN)[0] + BEGUN)
    assert rendered.endswith("}}\n</tool_call>" + after)


def test_a_call_costs_no_more_than_its_end(ours: Server) -> None:
    first = first_turn(CHAT, "How much does it cost?")
    response = answered(ours, CHAT, first)
    timings = response["timings"]
    total = timings["cache_n"] + timings["prompt_n"] + timings["predicted_n"]
    [call] = response["choices"][0]["message"]["tool_calls"]
    body = second_turn(CHAT, first, call["id"], call["function"]["arguments"])
    assert reuse(ours, CHAT, body) >= total - SEAM


@pytest.mark.parametrize("change", [{"n": [11]}, {"n": "10"}, {"m": 1}])
def test_a_call_that_the_client_changed_stays(ours: Server, theirs: Server, change: Json) -> None:
    first = first_turn(CHAT, f"How much is {change}?")
    made, arguments = call_in(CHAT, ours, first, stream=False)
    found = f"It is {change}."
    body = second_turn(CHAT, first, made, json.dumps(json.loads(arguments) | change), found)
    for server in (ours, theirs):
        answered(server, CHAT, body)
    assert prompt_with(ours, found) == prompt_with(theirs, found)


def test_a_call_of_another_conversation_stays(ours: Server, theirs: Server) -> None:
    """The same call behind another question was not written there."""
    first = first_turn(CHAT, "How much is this?")
    made, arguments = call_in(CHAT, ours, first, stream=False)
    body = second_turn(CHAT, first_turn(CHAT, "How much is that?"), made, arguments, "That is 42.")
    for server in (ours, theirs):
        answered(server, CHAT, body)
    assert prompt_with(ours, "That is 42.") == prompt_with(theirs, "That is 42.")
