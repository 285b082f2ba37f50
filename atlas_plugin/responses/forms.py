"""The two forms in which something may have been said: a message of a chat, or an item of the Responses API.

A record keeps what was said in the form that it had; here the other one is made of it. Pure: any thread.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

Item = dict[str, Any]
Message = dict[str, Any]

KINDS = ("message", "function_call", "function_call_output", "reasoning")
_TO_ITEM = {"text": "input_text", "image_url": "input_image"}
_TO_MESSAGE = {"input_text": "text", "output_text": "text", "input_image": "image_url"}
_OF_ITEMS_ALONE = ("id", "type", "status")


def is_item(said: Mapping[str, Any]) -> bool:
    """Whether it has the form of an item; messages have no type."""
    return said.get("type") in KINDS and isinstance(said.get("id"), str)


def role_of(said: Mapping[str, Any]) -> str:
    """Whose it is; empty where that is not known."""
    kind = said.get("type")
    if is_item(said) and kind != "message":
        return "tool" if kind == "function_call_output" else "assistant"
    role = said.get("role")
    return role if isinstance(role, str) else ""


def calls_of(said: Mapping[str, Any]) -> list[Any]:
    """The ids of the calls that it makes of tools."""
    if is_item(said):
        return [said.get("call_id")] if said["type"] == "function_call" else []
    calls = said.get("tool_calls")
    return [call.get("id") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def answered_call_of(said: Mapping[str, Any]) -> Any:
    """The id of the call that it is the result of; None where it is none."""
    if role_of(said) != "tool":
        return None
    return said.get("call_id") if is_item(said) else said.get("tool_call_id")


def messages_of(record: Iterable[Mapping[str, Any]]) -> list[Message]:
    """A record as messages.

    What the model said in items that follow each other is one message, as llama-server has it.
    """
    messages: list[Message] = []
    answer: Message | None = None
    """The message of the model that the next item belongs to."""
    for said in record:
        if not is_item(said):
            messages.append(dict(said))
            answer = None
        elif said["type"] == "function_call_output":
            messages.append(_result(said))
            answer = None
        elif said["type"] == "message" and said.get("role") != "assistant":
            messages.append(_message(said))
            answer = None
        else:
            if answer is None:
                answer = {"role": "assistant", "content": ""}
                messages.append(answer)
            _add(answer, said)
    return messages


def _message(item: Mapping[str, Any]) -> Message:
    return {**_kept(item), "content": _content(item.get("content"))}


def _result(item: Mapping[str, Any]) -> Message:
    head = {"role": "tool", "tool_call_id": item.get("call_id")}
    return {**head, **_kept(item, "call_id", "output"), "content": _content(item.get("output"))}


def _kept(said: Mapping[str, Any], *others: str) -> dict[str, Any]:
    """What both forms have alike: all but these fields, and those that items alone have."""
    return {key: value for key, value in said.items() if key not in (*_OF_ITEMS_ALONE, *others)}


def _add(answer: Message, item: Mapping[str, Any]) -> None:
    if item["type"] == "reasoning":
        # One without a text, as of another server's model, says nothing to this one.
        if text := _text(item.get("content")):
            answer["reasoning_content"] = text
    elif item["type"] == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"type": "function", "id": item.get("call_id"), "function": function}
        answer.setdefault("tool_calls", []).append(call)
    else:
        message = _message(item)
        content, before = message.pop("content"), answer["content"]
        if before:
            content = [*_parts(before), *_parts(content)]
        answer.update(message, content=content)


def _content(content: Any) -> Any:
    """Of parts; of one text alone the text."""
    if not isinstance(content, list):
        return "" if content is None else content
    parts = [_part(part) for part in content]
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], dict) and parts[0].keys() == {"type", "text"}:
        return parts[0]["text"]
    return parts


def _part(part: Any) -> Any:
    kind = _TO_MESSAGE.get(str(part.get("type"))) if isinstance(part, dict) else None
    if kind is None:
        return part
    if kind == "text":
        return {"type": kind, "text": part.get("text")}
    detail = {"detail": part["detail"]} if "detail" in part else {}
    return {"type": kind, "image_url": {"url": part.get("image_url"), **detail}}


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _text(content: Any) -> str:
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return next((text for text in texts if isinstance(text, str)), "")


def items_of(said: Mapping[str, Any], position: int) -> list[Item]:
    """What was said at a place of a record as items: more than one where a message reasons, or calls tools.

    Those of a message are named by the place.
    """
    if is_item(said):
        return [dict(said)]
    role = role_of(said)
    if role == "tool":
        kept = _kept(said, "role", "tool_call_id", "content")
        head = _head("function_call_output", "fco", position)
        output = _item_content(said.get("content"), "input_text", is_text_kept=True)
        return [{**head, "call_id": said.get("tool_call_id"), "output": output, **kept}]
    if role == "assistant":
        return _answer_items(said, position)
    content = _item_content(said.get("content"), "input_text")
    return [{**_head("message", "msg", position), **_kept(said), "content": content}]


def _answer_items(said: Mapping[str, Any], position: int) -> list[Item]:
    items: list[Item] = []
    kept = _kept(said, "reasoning_content", "tool_calls", "content")
    calls = said.get("tool_calls")
    calls = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    if isinstance(thought := said.get("reasoning_content"), str) and thought:
        content = [{"type": "reasoning_text", "text": thought}]
        items.append({**_head("reasoning", "rs", position), "summary": [], "content": content})
    if said.get("content") or not calls:
        content = _item_content(said.get("content"), "output_text")
        items.append({**_head("message", "msg", position), **kept, "content": content})
    for call in calls:
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        head = _head("function_call", "fc", position)
        head["id"] += f"_{crc32(str(call.get('id')).encode()):08x}"
        told = {"name": function.get("name"), "arguments": function.get("arguments")}
        items.append({**head, "call_id": call.get("id"), **told})
    return items


def _head(kind: str, prefix: str, position: int) -> Item:
    return {"id": f"{prefix}_at{position}", "type": kind, "status": "completed"}


def _item_content(content: Any, text_kind: str, *, is_text_kept: bool = False) -> Any:
    if isinstance(content, str):
        return content if is_text_kept else [_item_text(text_kind, content)]
    if not isinstance(content, list):
        return "" if is_text_kept else [_item_text(text_kind, "")]
    return [_item_part(part, text_kind) for part in content]


def _item_part(part: Any, text_kind: str) -> Any:
    kind = _TO_ITEM.get(str(part.get("type"))) if isinstance(part, dict) else None
    if kind == "input_text":
        return _item_text(text_kind, part.get("text"))
    if kind == "input_image":
        image = part.get("image_url")
        image = image if isinstance(image, dict) else {"url": image}
        return {"type": kind, "image_url": image.get("url"), "detail": image.get("detail", "auto")}
    return part


def _item_text(kind: str, text: Any) -> Item:
    part = {"type": kind, "text": text}
    return {**part, "annotations": [], "logprobs": []} if kind == "output_text" else part
