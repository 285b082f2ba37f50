"""`history: server` against the client's own list: the record, the next prompt and the answer are the same.

The list is kept as clients of OpenAI's API keep it, and sent whole to stock, which knows no record.
"""

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conformance import data_of, operate
from tests.server.conftest import StartServer
from tests.server.conversations import ONE_THREAD, memory_options
from tests.server.gguf_files import write_projector
from tests.server.harness import STOCK_BINARY, Server, stream_events

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
SCRIPTS, TURNS = 12, 4

# Shows all of a message, and refuses what templates with checks refuse: roles that do not take turns.
TEMPLATE = """
{%- if tools %}<tools>{{ tools | tojson }}</tools>{% endif -%}
{%- set before = namespace(role='') -%}
{%- for m in messages -%}
{%- if m.role not in ['system', 'user', 'assistant', 'tool'] -%}{{ raise_exception('no such role: ' + m.role) }}{%- endif -%}
{%- if m.role == before.role and m.role != 'tool' and m.role != 'system' -%}{{ raise_exception('two messages of ' + m.role) }}{%- endif -%}
{%- set before.role = m.role -%}
<|{{ m.role }}|>
{%- if m.name %}[{{ m.name }}]{% endif -%}
{%- if m.tool_call_id %}({{ m.tool_call_id }}){% endif -%}
{%- if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif -%}
{%- if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif -%}
{%- for call in m.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor -%}
<|end|>
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>{% endif -%}
"""  # noqa: E501

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Lima"]}},
    "required": ["city"],
}
TOOL = {"type": "function", "function": {"name": "weather", "description": "", "parameters": WEATHER}}
ODD = {
    "numbers": [0, -1, 1.0, 1.5, 1e300, 5e-324, 2**63, 2**64 - 1, -(2**63)],
    "texts": ["", "\0", "é", "😀", '"\\/\u2028', "\x7f"],
    "deep": {"": [None, True, False, {"x": []}]},
}

Json = dict[str, Any]


def call(name: str, **arguments: Any) -> Json:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call_{name}", "type": "function", "function": function}


def questions(chooser: random.Random, number: int) -> list[Json]:
    """What somebody sends: one of the kinds of messages that OpenAI's API has, behind an answer."""
    text = f"My name is {chooser.choice(['Nora', 'Ivan', 'Ruth'])}, for the {number}. time."
    user: Json = {"role": "user", "content": text}
    parts = [{"type": "text", "text": piece} for piece in (text, "What is my name?")]
    kinds: list[list[Json]] = [
        [user],
        [{**user, "name": "nora", "metadata": ODD, "content": parts}],
        [user, {"role": "assistant", "content": "My name"}],
        [user, {"role": "assistant", "content": parts[:1], "x_mood": ODD}],
        [user, {"role": "assistant", "content": "", "reasoning_content": "The name is"}],
        [user, {"role": "assistant", "content": ""}],
        [user, {"role": "assistant", "content": None, "refusal": "No."}, user],
        [user, {"role": "assistant", "content": "Hm.", "reasoning_content": "Who?", "annotations": []}, user],
        [
            user,
            {"role": "assistant", "content": None, "tool_calls": [call("a", x=1), call("b", y=[ODD])]},
            {"role": "tool", "tool_call_id": "call_a", "content": "1"},
            {"role": "tool", "tool_call_id": "call_b", "name": "b", "content": parts},
        ],
        [user, {"role": "developer", "content": "Be kind."}],
    ]
    return chooser.choice(kinds)


def said(events: list[Any]) -> Json:
    """The message that a stream of a chat completion amounts to, of its first choice."""
    message: Json = {"role": "assistant", "content": ""}
    calls: list[Json] = []
    for choice in (choice for event in events for choice in event["choices"] if choice["index"] == 0):
        delta = choice["delta"]
        message["content"] += delta.get("content") or ""
        if reasoning := delta.get("reasoning_content"):
            message["reasoning_content"] = message.get("reasoning_content", "") + reasoning
        for piece in delta.get("tool_calls", []):
            if piece["index"] == len(calls):
                function = {"name": piece["function"]["name"], "arguments": ""}
                calls.append({"id": piece["id"], "type": "function", "function": function})
            calls[-1]["function"]["arguments"] += piece["function"].get("arguments", "")
    return message | ({"tool_calls": calls} if calls else {})


def ask(server: Server, body: Json) -> tuple[Json, Json]:
    """The message of a chat completion's first choice, and its `atlas` object."""
    response = server.post(CHAT, body)
    assert response.status_code == 200, response.text
    if body.get("stream"):
        events = stream_events(response.text)
        return said(events), events[-1].get("atlas", {})
    answer = response.json()
    return answer["choices"][0]["message"], answer.get("atlas", {})


def record(server: Server, session: str) -> list[Json]:
    loaded = data_of(operate(server, "load", {"context_id": session}))
    messages: list[Json] = loaded["session"]["conversation_history"]
    return messages


def recorded_of(sent: list[Json], answer: Json) -> list[Json]:
    """What a client has after an answer: the beginning of one is no message of its own."""
    *before, last = sent
    if last["role"] != "assistant":
        return [*sent, answer]
    kept = {key: value for key, value in last.items() if key != "reasoning_content"}
    return [*before, {**kept, **answer}]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "strict.jinja"
    path.write_text(TEMPLATE.strip(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("ours")
    options = [*memory_options(directory), "--jinja", "--chat-template-file", template, "-c", "8192"]
    with Server(options, directory=directory) as running:
        yield running


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Iterator[Server]:
    options: list[str | Path] = [*ONE_THREAD, "--jinja", "--chat-template-file", template, "-c", "8192"]
    directory = tmp_path_factory.mktemp("theirs")
    with Server(options, directory=directory, binary=STOCK_BINARY) as running:
        yield running


def prompt(server: Server, messages: list[Json], **fields: Any) -> str:
    response = server.post("/apply-template", {"messages": messages, **fields})
    assert response.status_code == 200, response.text
    text: str = response.json()["prompt"]
    return text


@pytest.mark.parametrize("seed", range(SCRIPTS))
def test_chats_by_chance(ours: Server, theirs: Server, seed: int) -> None:
    chooser = random.Random(seed)
    session, kept = f"chance-{seed}", [{"role": "system", "content": "Be brief."}][: seed % 2]
    for number in range(TURNS):
        sent = questions(chooser, number)
        fields: Json = {"temperature": 0, "max_tokens": chooser.choice([1, 3, 12])}
        fields |= chooser.choice([{}, {"stop": ["name", "e"]}, {"n": 2}])
        stream = chooser.random() < 0.3
        server_side = {"session_id": session, "history": "server"}
        new = sent if number else [*kept, *sent]
        answer, atlas = ask(ours, {"messages": new, "stream": stream, **fields, "atlas": server_side})
        assert atlas["degraded"] is False
        expected, _ = ask(theirs, {"messages": [*kept, *sent], **fields})
        assert answer == expected
        kept = recorded_of([*kept, *sent], answer)
        assert record(ours, session) == kept
        assert prompt(ours, record(ours, session)) == prompt(theirs, kept)


@pytest.mark.parametrize("how", ["content", "reasoning_content"])
def test_what_is_gone_on_with(ours: Server, theirs: Server, how: str) -> None:
    begun = {"role": "assistant", "content": "My name", "reasoning_content": "They want to know"}
    sent: list[Json] = [{"role": "user", "content": "What is your name?"}, begun]
    body: Json = {"messages": sent, "temperature": 0, "max_tokens": 12}
    body |= {"continue_final_message": how, "add_generation_prompt": False}
    answer, _ = ask(ours, {**body, "atlas": {"session_id": how, "history": "server"}})
    assert answer == ask(theirs, body)[0]
    assert record(ours, how) == [sent[0], answer]


# The demo model calls no tools by itself.
BEGUN = {"role": "assistant", "content": '<tool_call>\n{"name": "weather", "arguments": '}


def question_for(path: str, text: str) -> Json:
    """A body that has the weather asked for."""
    question = {"role": "user", "content": text}
    # where it would begin the next call
    once: Json = {"tool_choice": "required", "stop": [","]}
    if path == CHAT:
        return {"messages": [question, BEGUN], "tools": [TOOL], **once}
    function: Json = TOOL["function"]  # type: ignore[assignment]
    if path == RESPONSES:
        items = [question, {"type": "message", **BEGUN}]
        return {"input": items, "tools": [{"type": "function", **function}], **once}
    tool = {"name": function["name"], "input_schema": function["parameters"]}
    once = {"tool_choice": {"type": "any"}, "stop_sequences": once["stop"]}
    return {"messages": [question, BEGUN], "tools": [tool], **once}


def result_for(path: str, call_id: str, text: str) -> Json:
    """A body that says what the tool found."""
    if path == CHAT:
        return {"messages": [{"role": "tool", "tool_call_id": call_id, "content": text}]}
    if path == RESPONSES:
        return {"input": [{"type": "function_call_output", "call_id": call_id, "output": text}]}
    block = {"type": "tool_result", "tool_use_id": call_id, "content": text}
    return {"messages": [{"role": "user", "content": [block]}]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
def test_calls_of_tools(ours: Server, theirs: Server, path: str, stream: bool) -> None:
    """One message has the call, with the id that the client was given: by it the result is put behind it."""
    session = f"tools{path.replace('/', '.')}{stream}"
    server_side = {"temperature": 0, "atlas": {"session_id": session, "history": "server"}}
    response = ours.post(
        path, {**question_for(path, "What is the weather like?"), **server_side, "stream": stream}
    )
    assert response.status_code == 200, response.text
    question, answer = record(ours, session)
    assert (question["role"], answer["role"], answer["content"]) == ("user", "assistant", "")
    [made] = answer["tool_calls"]
    assert made["function"]["name"] == "weather"
    assert json.loads(made["function"]["arguments"])["city"] in ("Oslo", "Lima")
    assert f'"{made["id"]}"' in response.text

    response = ours.post(path, {**result_for(path, made["id"], "It rains."), **server_side})
    assert response.status_code == 200, response.text
    stored = record(ours, session)
    assert stored[:3] == [question, answer, result_for(CHAT, made["id"], "It rains.")["messages"][0]]
    assert stored[3]["role"] == "assistant"
    assert prompt(ours, stored) == prompt(theirs, stored)


def test_a_call_that_is_cut_off_is_not_recorded(ours: Server) -> None:
    """Stock refuses a list with such a call from then on, and no client could take it out of the record."""
    server_side = {"temperature": 0, "atlas": {"session_id": "cut", "history": "server"}}
    tell: Json = {"messages": [{"role": "user", "content": "My name is Nora."}], **server_side}
    first = ask(ours, tell)[0]
    answer, atlas = ask(ours, {**question_for(CHAT, "Weather?"), "max_tokens": 5, **server_side})
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer["tool_calls"][0]["function"]["arguments"])
    assert (atlas["degraded"], "arguments of its tool call are no JSON" in atlas["reason"]) == (True, True)
    assert record(ours, "cut") == [*tell["messages"], first]
    assert ask(ours, tell)[1]["degraded"] is False


def test_an_image(start_server: StartServer, tmp_path: Path) -> None:
    """The record has the image as it was sent, and the next turn's prompt has it again."""
    pixel = base64.b64encode(b"P6 16 16 255\n" + bytes(16 * 16 * 3)).decode()
    image = {
        "type": "image_url",
        "image_url": {"url": f"data:image/x-portable-pixmap;base64,{pixel}", "detail": "low"},
    }
    projector = write_projector(tmp_path / "mmproj.gguf")
    server = start_server([*memory_options(tmp_path), "--mmproj", projector])
    sent = [{"role": "user", "content": [{"type": "text", "text": "Look."}, image]}]
    answers = []
    for number, messages in enumerate((sent, [{"role": "user", "content": "Again."}])):
        body: Json = {"messages": messages, "temperature": 0, "max_tokens": 4}
        body["atlas"] = {"session_id": "seen", "history": "server"}
        response = server.post(CHAT, body)
        assert response.status_code == 200, (number, response.text)
        answers.append(response.json())
    loaded = record(server, "seen")
    assert loaded[0] == sent[0]
    whole = {"messages": [*loaded[:2], loaded[2]], "temperature": 0, "max_tokens": 4}
    assert server.post(CHAT, whole).json()["usage"]["prompt_tokens"] == answers[1]["usage"]["prompt_tokens"]
