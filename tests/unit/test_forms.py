"""The two forms of what was said, made of each other."""

from typing import Any

import pytest

from atlas_plugin.responses import forms
from atlas_plugin.responses.forms import items_of, messages_of

CALLS = [
    {"type": "function", "id": "call_1", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
    {"type": "function", "id": "call_2", "function": {"name": "time", "arguments": "{}"}},
]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": "In German."},
    {"role": "user", "content": "How is the weather?"},
    {"role": "user", "content": [{"type": "text", "text": "What is it?"}, PICTURE]},
    {"role": "user", "content": "Hello.", "name": "ada", "x_draft": {"a": [1]}},
    {"role": "assistant", "content": "It is raining."},
    {"role": "assistant", "content": ""},
    {"role": "assistant", "content": "Raining.", "reasoning_content": "Oslo is wet."},
    {"role": "assistant", "content": "", "tool_calls": CALLS},
    {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": CALLS[:1]},
    {"role": "tool", "tool_call_id": "call_1", "content": "It is raining."},
    {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "Noon."}, PICTURE]},
    {"role": "assistant", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: f"{message['role']}-{len(str(message))}")
def test_a_message_comes_back_from_its_items(message: dict[str, Any]) -> None:
    items = items_of(message, 7)
    assert all(forms.is_item(item) for item in items)
    assert len({item["id"] for item in items}) == len(items)
    assert messages_of(items) == [message]


def test_of_what_kinds_the_items_of_a_message_are() -> None:
    reasoning, text, call = items_of(MESSAGES[9], 3)
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert (reasoning["type"], reasoning["summary"]) == ("reasoning", [])
    assert (text["type"], text["role"]) == ("message", "assistant")
    assert text["content"] == [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]
    assert (call["type"], call["call_id"], call["name"]) == ("function_call", "call_1", "weather")
    assert [item["id"] for item in (reasoning, text)] == ["rs_at3", "msg_at3"]


ITEMS: list[dict[str, Any]] = [
    {"id": "msg_1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    {"id": "rs_1", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
    {
        "id": "msg_2",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "I look."}],
    },
    {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
    {"id": "fc_2", "type": "function_call", "call_id": "call_2", "name": "time", "arguments": "{}"},
    {"id": "fco_1", "type": "function_call_output", "call_id": "call_1", "output": "Rain."},
    {"id": "fco_2", "type": "function_call_output", "call_id": "call_2", "output": "Noon."},
    {
        "id": "msg_3",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Rain."}],
    },
]


def test_items_stay_as_they_are() -> None:
    assert [items_of(item, at) for at, item in enumerate(ITEMS)] == [[item] for item in ITEMS]


def test_an_answer_in_several_items_is_one_message() -> None:
    user, answer, *results, last = messages_of(ITEMS)
    assert user == {"role": "user", "content": "Hi"}
    assert answer == {
        "role": "assistant",
        "content": "I look.",
        "reasoning_content": "Hm",
        "tool_calls": [
            {"type": "function", "id": "call_1", "function": {"name": "weather", "arguments": "{}"}},
            {"type": "function", "id": "call_2", "function": {"name": "time", "arguments": "{}"}},
        ],
    }
    assert [result["tool_call_id"] for result in results] == ["call_1", "call_2"]
    assert last == {"role": "assistant", "content": "Rain."}


def test_both_forms_in_one_record() -> None:
    record = [MESSAGES[2], MESSAGES[8], ITEMS[5], MESSAGES[5], ITEMS[7]]
    assert [message["role"] for message in messages_of(record)] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "assistant",
    ]


def test_reasoning_without_a_text_says_nothing() -> None:
    """As of a model elsewhere, which keeps it to itself."""
    silent = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}
    assert messages_of([silent, ITEMS[7]]) == [{"role": "assistant", "content": "Rain."}]


@pytest.mark.parametrize(
    "odd", [{}, {"role": 7}, {"role": "assistant", "tool_calls": "x"}, {"type": "message"}]
)
def test_what_no_server_wrote_is_an_item_all_the_same(odd: dict[str, Any]) -> None:
    [item] = items_of(odd, 0)
    assert item["id"] == "msg_at0"


def test_whose_it_is() -> None:
    assert [forms.role_of(item) for item in ITEMS[3:6]] == ["assistant", "assistant", "tool"]
    assert [forms.calls_of(one) for one in (ITEMS[3], MESSAGES[8], ITEMS[0])] == [
        ["call_1"],
        ["call_1", "call_2"],
        [],
    ]
    assert [forms.answered_call_of(one) for one in (ITEMS[5], MESSAGES[10], ITEMS[0])] == [
        "call_1",
        "call_1",
        None,
    ]
