"""Programs that work with tools: prompts whose beginning moves, and calls that come back in other words."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import ONE_THREAD, filler, memory_options, reused_tokens
from tests.server.harness import STOCK_BINARY, Server, stream_events

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
ROUTES = [MESSAGES, CHAT, RESPONSES]
HASH_LENGTHS = [1, 5, 8, 32]
TURNS = 6
AGENT = "You are Claude Code, Anthropic's official CLI for Claude."
# Tokens: what a turn may have more than the next one's prompt has of it, as its end is written anew.
SEAM = 8
SHOWS_PROMPTS = {"LLAMA_SERVER_SLOTS_DEBUG": "1"}

Json = dict[str, Any]


def billing_line(seed: int, length: int = 5, of_version: str = "e51") -> str:
    """As Claude Code begins its system prompt; the hash is another for each request."""
    cch = random.Random(seed).randbytes(16).hex()[:length]
    return f"x-anthropic-billing-header: cc_version=2.1.101.{of_version}; cc_entrypoint=cli; cch={cch};"


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


def text_of(route: str, answer: Json) -> str:
    if route == MESSAGES:
        return "".join(block.get("text", "") for block in answer["content"])
    if route == RESPONSES:
        return "".join(part["text"] for item in answer["output"] for part in item.get("content", []))
    text: str = answer["choices"][0]["message"]["content"]
    return text


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


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "calls.jinja"
    path.write_text(TEMPLATE.strip(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("ours")
    options = [*memory_options(directory), "--jinja", "--chat-template-file", template, "-c", "16384"]
    with Server(options, SHOWS_PROMPTS, directory=directory) as running:
        yield running


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("theirs")
    options: list[str | Path] = [*ONE_THREAD, "--jinja", "--chat-template-file", template, "-c", "16384"]
    with Server(options, SHOWS_PROMPTS, directory=directory, binary=STOCK_BINARY) as running:
        yield running


@pytest.fixture
def switched_off(ours: Server) -> Iterator[Server]:
    settle(ours, is_on=False)
    yield ours
    settle(ours, is_on=True)


#
# billing lines
#


@pytest.mark.parametrize("length", HASH_LENGTHS)
@pytest.mark.parametrize("route", ROUTES)
def test_reuse_grows_with_each_turn(ours: Server, route: str, length: int) -> None:
    """The line of each turn has another hash, and all of the turn before is found behind it."""
    rules = f"For {route} and {length}. {filler(30)}"
    messages: list[Json] = []
    before = 0
    for number in range(TURNS):
        messages.append(said(route, "user", f"My name is Nora, for the {number}. time. {filler(4)}"))
        system = [billing_line(number, length), AGENT, rules]
        answer = answered(ours, route, body_of(route, system, messages, atlas={}))
        atlas = answer["atlas"]
        assert atlas["reused_tokens"] >= before - (SEAM if number else 0)
        assert "moved" not in atlas
        before = atlas["prompt_tokens"]
        messages.append(said(route, "assistant", text_of(route, answer)))


def test_conversations_of_one_client_share_its_instructions(ours: Server) -> None:
    """The end of the version is a hash of the first message."""
    rules = f"For conversations. {filler(30)}"
    first = body_of(MESSAGES, [billing_line(1), AGENT, rules], [said(MESSAGES, "user", "I am Ada.")])
    answered(ours, MESSAGES, first)
    line = billing_line(2, of_version="0a7")
    other = body_of(MESSAGES, [line, AGENT, rules], [said(MESSAGES, "user", "My dog is Rex.")], atlas={})
    atlas = answered(ours, MESSAGES, other)["atlas"]
    assert atlas["reused_tokens"] > 0.9 * atlas["prompt_tokens"]


@pytest.mark.parametrize("length", HASH_LENGTHS)
@pytest.mark.parametrize("route", ROUTES)
def test_switched_off_a_prompt_is_stocks(
    switched_off: Server, theirs: Server, route: str, length: int
) -> None:
    body = body_of(route, [billing_line(7, length), AGENT], [said(route, "user", f"I am {route} {length}.")])
    for server in (switched_off, theirs):
        answered(server, route, body)
    [prompt] = [text for text in prompts(theirs) if f"I am {route} {length}." in text]
    assert prompt in prompts(switched_off)


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_no_billing_line_is_as_stock_has_it(ours: Server, theirs: Server, route: str) -> None:
    line = billing_line(3)
    system = [AGENT, f"Never say {line}", " " + line]
    body = body_of(route, system, [said(route, "user", f"{line} What is this, {route}?")])
    for server in (ours, theirs):
        answered(server, route, body)
    [prompt] = [text for text in prompts(theirs) if f"What is this, {route}?" in text]
    assert prompt in prompts(ours)


def test_a_prompt_that_is_sent_as_text_stays(ours: Server) -> None:
    text = f"{billing_line(4)} {filler(3)}"
    answered(ours, "/completion", {"prompt": text, "n_predict": 1})
    assert any(text in prompt for prompt in prompts(ours))


#
# what has moved
#

MOVERS = {
    "date": ("Today's date is 2026-11-28.", "Today's date is 2026-11-29.", "2026-11-29"),
    "time": ("It is 2026-11-29T10:11:12Z.", "It is 2026-11-29T10:13:05Z.", "2026-11-29T10:13:05Z"),
    "id": ("Request req_011CSHoEeqs5C35K.", "Request req_011CSHoEeqs8C35K.", "req_011CSHoEeqs8C35K"),
}


def ask(server: Server, system: str, question: str = "Who am I?", **atlas: Any) -> Json:
    body = body_of(CHAT, [system], [said(CHAT, "user", question)], atlas=atlas)
    found: Json = answered(server, CHAT, body)["atlas"]
    return found


def moved_of_last(server: Server) -> str:
    listed = server.get("/v1/atlas/requests").json()
    moved: str = listed["data"]["requests"][-1]["memory"]["moved"]
    return moved


@pytest.mark.parametrize("what", MOVERS)
def test_what_moves_is_named(ours: Server, what: str) -> None:
    first, second, text = MOVERS[what]
    before = f"You are careful, for {what}. {filler(5)}"
    ask(ours, f"{before} {first} {filler(30)}")
    atlas = ask(ours, f"{before} {second} {filler(30)}")
    assert atlas["reason"] == "prefix_moved"
    assert (atlas["moved"]["what"], atlas["moved"]["text"]) == (what, text)
    # where it differs, and no further, the prompt was known
    assert atlas["moved"]["token"] == atlas["reused_tokens"] < atlas["prompt_tokens"] / 2
    assert moved_of_last(ours) == what
    again = ask(ours, f"{before} {second} {filler(30)}")
    assert (again["reason"], "moved" in again, moved_of_last(ours)) == (None, False, "")


def test_a_billing_line_is_named_where_it_may_move(switched_off: Server) -> None:
    rules = f"Be named. {filler(30)}"
    for seed in (1, 2):
        messages = [said(CHAT, "user", "Who am I?")]
        body = body_of(CHAT, [billing_line(seed), AGENT, rules], messages, atlas={})
        atlas = answered(switched_off, CHAT, body)["atlas"]
    assert (atlas["reason"], atlas["moved"]["what"]) == ("prefix_moved", "billing_line")
    assert atlas["moved"]["text"].startswith("x-anthropic-billing-header:")


def test_conversations_that_only_share_a_beginning_are_not_said_to_move(ours: Server) -> None:
    rules = f"Be patient. {filler(20)}"
    ask(ours, rules, f"My name is Nora. {filler(30)}")
    atlas = ask(ours, rules, f"Where is the town of Oslo? {filler(30)}")
    assert atlas["reused_tokens"] > 0
    assert (atlas["reason"], "moved" in atlas) == (None, False)


def test_a_sessions_history_that_changed_is_named(ours: Server) -> None:
    rules = f"Be curious. {filler(20)}"
    for name in ("Nora", "Omar"):
        atlas = ask(ours, rules, f"My name is {name}. {filler(30)}", session_id="changed")
    assert (atlas["reason"], atlas["moved"]["what"]) == ("prefix_moved", "history")
    assert atlas["moved"]["text"].startswith("Omar") or "Omar" in atlas["moved"]["text"]
    assert "Nora" not in json.dumps(atlas)


def test_what_other_keys_sent_is_not_compared(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), "--api-key", "one,two"], api_key="one")
    first, second, _ = MOVERS["date"]
    seen = []
    for key, line in (("one", first), ("two", second), ("one", second)):
        body = body_of(CHAT, [f"{line} {filler(30)}"], [said(CHAT, "user", "Who?")], atlas={})
        response = server.post(CHAT, body, headers={"Authorization": f"Bearer {key}"})
        assert response.status_code == 200, response.text
        seen.append("moved" in response.json()["atlas"])
    assert seen == [False, False, True]


#
# calls of tools
#

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
    return {"tools": [{"type": "function", "function": {**scale, "parameters": AMOUNT}}]}


def first_turn(route: str, question: str) -> Json:
    choice: Json = {"type": "any"} if route == MESSAGES else "required"  # type: ignore[assignment]
    messages = [said(route, "user", question), said(route, "assistant", BEGUN)]
    # where it would begin the next call
    stop = {"stop_sequences" if route == MESSAGES else "stop": ["} ,"]}
    forced = {"tool_choice": choice, "logit_bias": [list(item) for item in CHOSEN.items()], **stop}
    body = body_of(route, [f"Be exact. {filler(10)}"], messages, **tools_of(route), **forced)
    return {**body, "max_tokens": 200}


def call_in(route: str, server: Server, body: Json, *, stream: bool) -> tuple[str, str]:
    """Id and arguments of the call that the model makes, these as JSON text."""
    response = server.post(route, {**body, "stream": stream})
    assert response.status_code == 200, response.text
    if not stream:
        if route == MESSAGES:
            [block] = [block for block in response.json()["content"] if block["type"] == "tool_use"]
            return block["id"], json.dumps(block["input"])
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
    return {**body, "messages": [*messages, *more], **tools_of(route), "temperature": 0, "max_tokens": 4}


def prompt_with(server: Server, found: str) -> str:
    """The prompt of the turn in which the tool found that."""
    [prompt] = {prompt for prompt in prompts(server) if found in prompt}
    return prompt


def reuse(server: Server, route: str, body: Json) -> int:
    return max(reused_tokens(answered(server, route, body)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", [CHAT, MESSAGES])
def test_a_call_comes_back_as_the_model_wrote_it(
    ours: Server, theirs: Server, route: str, stream: bool
) -> None:
    """What the client and the template make of its JSON would be computed anew, and all behind it."""
    first = first_turn(route, f"How much is {route} {stream}?")
    made, arguments = call_in(route, ours, first, stream=stream)

    def body(found: str) -> Json:
        return second_turn(route, first, made, json.dumps(json.loads(arguments)), found)

    answered(theirs, route, body("Theirs is 42."))
    rendered = prompt_with(theirs, "Theirs is 42.").replace("Theirs", "Ours")
    settle(ours, is_on=False)
    plain = reuse(ours, route, body("Off is 42."))
    settle(ours, is_on=True)
    assert prompt_with(ours, "Off is 42.").replace("Off", "Ours") == rendered

    assert reuse(ours, route, body("Ours is 42.")) > plain + SEAM
    prompt = prompt_with(ours, "Ours is 42.")
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
