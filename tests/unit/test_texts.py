"""The texts of requests, answers and streams, in shapes that a small model does not make."""

from collections import defaultdict
from typing import Any

import pytest

from atlas_plugin.texts import (
    StreamTexts,
    has_token_ids,
    in_answer,
    in_request,
    of_answer,
    of_event,
    of_request,
    without_details,
)


class Late:
    """Says nothing before its end, then all of it in capitals."""

    def __init__(self) -> None:
        self.held = ""

    def feed(self, text: str) -> str:
        self.held += text
        return ""

    def end(self) -> str:
        return self.held.upper()


class Early:
    """Holds nothing back."""

    def feed(self, text: str) -> str:
        return text.upper()

    def end(self) -> str:
        return ""


REQUESTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"messages": [{"role": "user", "name": "x", "content": "a"}]}, ["a"]),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, ["a"]),
    ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]}, []),
    ({"messages": [{"role": "assistant", "reasoning_content": "a", "content": None}]}, ["a"]),
    (
        {"messages": [{"tool_calls": [{"id": "x", "function": {"name": "x", "arguments": '{"a":1}'}}]}]},
        ['{"a":1}'],
    ),
    ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "a"}]}, ["a"]),
    (
        {"messages": [{"content": [{"type": "tool_use", "id": "x", "name": "x", "input": {"url": "a"}}]}]},
        ["url", "a"],
    ),
    (
        {
            "messages": [
                {"content": [{"type": "tool_result", "tool_use_id": "x", "content": [{"text": "a"}]}]}
            ]
        },
        ["a"],
    ),
    ({"system": [{"type": "text", "text": "a"}], "messages": []}, ["a"]),
    ({"input": [{"type": "function_call_output", "call_id": "x", "output": "a"}]}, ["a"]),
    ({"input": "a", "instructions": "b"}, ["a", "b"]),
    ({"prompt": ["a", {"prompt_string": "b", "multimodal_data": ["x"]}]}, ["a", "b"]),
    (
        {"prompt": "a", "input_prefix": "b", "input_extra": [{"filename": "c", "text": "d"}]},
        ["a", "b", "c", "d"],
    ),
    ({"chat_template_kwargs": {"note": "a", "enable_thinking": False}}, ["a"]),
    (
        {"tools": [{"type": "function", "function": {"name": "x", "description": "a", "parameters": {}}}]},
        ["a"],
    ),
    ({"model": "x", "user": "x", "stop": ["x"], "stream": True}, []),
]


@pytest.mark.parametrize(("body", "texts"), REQUESTS)
def test_requests(body: dict[str, Any], texts: list[str]) -> None:
    assert sorted(of_request(body)) == sorted(texts)
    changed = in_request(body, str.upper)
    assert sorted(of_request(changed)) == sorted(text.upper() for text in texts)
    assert str(changed).count("X") == 0
    assert in_request(body, str) == body


def test_numbers_that_a_tool_is_called_with() -> None:
    body = {"messages": [{"content": [{"type": "tool_use", "input": {"card": 4111, "no": 1, "is": True}}]}]}
    changed = in_request(body, lambda text: text.replace("4111", "[CARD]"))
    assert changed["messages"][0]["content"][0]["input"] == {"card": "[CARD]", "no": 1, "is": True}


@pytest.mark.parametrize(
    ("body", "has"),
    [
        ({"prompt": "a"}, False),
        ({"prompt": ["a", "b"]}, False),
        ({"prompt": [1, 2]}, True),
        ({"prompt": ["a", 7, "b"]}, True),
        ({"prompt": ["a", [1, 2]]}, True),
        ({"input": "a"}, False),
        ({"messages": []}, False),
    ],
)
def test_token_ids(body: dict[str, Any], has: bool) -> None:
    assert has_token_ids(body) is has


def test_what_a_model_wrote() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "x", "arguments": '{"a":1}'}}
    choice = {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call]}}
    use = {"type": "tool_use", "id": "x", "name": "x", "input": {"name": "b"}}
    assert list(of_answer({"choices": [choice], "model": "x"})) == ['{"a":1}']
    assert list(of_answer({"type": "message", "content": [use, {"type": "text", "text": "c"}]})) == [
        "name",
        "b",
        "c",
    ]
    assert list(of_answer([{"content": "a", "prompt": "x"}, {"content": "b"}])) == ["a", "b"]
    assert in_answer({"content": "a", "prompt": "b", "model": "x"}, str.upper) == {
        "content": "A",
        "prompt": "B",
        "model": "x",
    }


def test_details() -> None:
    answer = {
        "content": "a",
        "tokens": [1],
        "tokens_predicted": 1,
        "completion_probabilities": [{"token": "a"}],
        "__verbose": {"content": "a"},
        "choices": [{"logprobs": {"content": []}}],
    }
    assert without_details(answer) == {
        "content": "a",
        "tokens": [],
        "tokens_predicted": 1,
        "completion_probabilities": [],
        "__verbose": None,
        "choices": [{"logprobs": None}],
    }


def chat(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "finish_reason": finish, "delta": delta}]}


def call(place: int, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    function = ({"name": more.pop("name")} if "name" in more else {}) | (
        {} if arguments is None else {"arguments": arguments}
    )
    return chat(tool_calls=[{"index": place, **more, "function": function}])


def named(event: str, **data: Any) -> dict[str, Any]:
    return {"event": event, "data": {"type": event, **data}}


TOOL_STREAM = [
    chat(role="assistant", content=None),
    call(0, id="c1", type="function", name="mail", arguments="{"),
    call(0, '"to":'),
    call(0, '"ada"}'),
    call(1, id="c2", type="function", name="mail", arguments="{}"),
    chat(finish="tool_calls"),
    {"choices": [], "usage": {"completion_tokens": 9}},
]
BLOCK_STREAM = [
    named("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
    named("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
    named("content_block_start", index=1, content_block={"type": "tool_use", "id": "x", "name": "mail"}),
    named("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '{"a"'}),
    named("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": ":1}"}),
    named("content_block_delta", index=0, delta={"type": "signature_delta", "signature": ""}),
    named("content_block_stop", index=0),
    named("content_block_stop", index=1),
    named("message_delta", delta={"stop_reason": "tool_use"}),
    named("message_stop"),
]
ITEM_STREAM = [
    named("response.output_item.added", item={"id": "fc_1", "type": "function_call", "arguments": ""}),
    named("response.function_call_arguments.delta", item_id="fc_1", delta='{"a"'),
    named("response.function_call_arguments.delta", item_id="fc_1", delta=":1}"),
    named("response.output_item.done", item={"id": "fc_1", "type": "function_call", "arguments": '{"a":1}'}),
    named("response.completed", response={"output": [{"id": "fc_1", "arguments": '{"a":1}'}]}),
]
SPEECH_STREAM = [
    {"type": "transcript.text.delta", "delta": "he"},
    {"type": "transcript.text.delta", "delta": "llo"},
    {"type": "transcript.text.done", "text": "hello"},
]
CHOICES = [
    chat(0, content="a"),
    chat(1, content="b"),
    chat(0, content="c"),
    chat(1, "stop"),
    chat(0, "length"),
]
STREAMS = [TOOL_STREAM, BLOCK_STREAM, ITEM_STREAM, SPEECH_STREAM, CHOICES]


def said(events: list[dict[str, Any]]) -> dict[Any, str]:
    texts: defaultdict[Any, str] = defaultdict(str)
    for event in events:
        for key, piece in of_event(event):
            texts[key] += piece
    return texts


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("make", [Late, Early])
def test_streams(stream: list[dict[str, Any]], make: type[Late] | type[Early]) -> None:
    texts = StreamTexts(make)
    changed = [one for event in stream for one in texts.chunk([event], False)] + texts.chunk([], True)
    assert said(changed) == {key: text.upper() for key, text in said(stream).items()}


def test_a_tool_is_named_once() -> None:
    changed = StreamTexts(Late).chunk(TOOL_STREAM, True)
    calls = [
        call for event in changed for one in event["choices"] for call in one["delta"].get("tool_calls", ())
    ]
    assert [one["id"] for one in calls if "id" in one] == ["c1", "c2"]
    assert [one["function"]["name"] for one in calls if "name" in one["function"]] == ["mail", "mail"]
    assert [one["function"]["arguments"] for one in calls] == ["", "", '{"TO":"ADA"}', "{}"]


def test_what_was_held_back_comes_before_the_end_of_its_text() -> None:
    changed = [
        one["event"] + str(one["data"].get("index", ""))
        for one in StreamTexts(Late).chunk(BLOCK_STREAM, False)
    ]
    assert changed == [
        "content_block_start0",
        "content_block_start1",
        "content_block_delta0",
        "content_block_delta0",
        "content_block_stop0",
        "content_block_delta1",
        "content_block_stop1",
        "message_delta",
        "message_stop",
    ]
    ends = [one["choices"][0] for one in StreamTexts(Late).chunk(CHOICES, False)]
    assert [(one["index"], one["finish_reason"], one["delta"].get("content")) for one in ends] == [
        (1, None, "B"),
        (1, "stop", None),
        (0, None, "AC"),
        (0, "length", None),
    ]


def test_whole_texts_that_are_told_again() -> None:
    *_, done, completed = StreamTexts(Late).chunk(ITEM_STREAM, True)
    assert done["data"]["item"]["arguments"] == '{"A":1}'
    assert completed["data"]["response"]["output"][0]["arguments"] == '{"A":1}'


def test_a_stream_that_is_cut() -> None:
    texts = StreamTexts(Late)
    assert texts.chunk([{"index": 0, "content": "a", "stop": False}], False) == []
    assert texts.chunk([], True) == [{"index": 0, "content": "A", "stop": False}]


def test_counts_come_with_a_text_that_is_held_back() -> None:
    event = {**chat(content="a"), "timings": {"predicted_n": 1}}
    texts = StreamTexts(Late)
    assert texts.chunk([event], False) == [{**chat(content=""), "timings": {"predicted_n": 1}}]
    assert texts.chunk([], True) == [chat(content="A")]


def test_nothing_that_was_handed_over_is_changed() -> None:
    before = str(STREAMS)
    for stream in STREAMS:
        StreamTexts(Late).chunk(stream, True)
    assert str(STREAMS) == before
