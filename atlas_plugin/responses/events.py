"""The events of a response's stream, made anew: what was sent is not kept for long. Pure: any thread."""

from collections.abc import Iterator, Mapping
from typing import Any

from atlas_plugin import json_text
from atlas_plugin.storage.responses import UNKNOWN_EVENT

Event = dict[str, Any]


def replayed(response: Mapping[str, Any], last_event: int, after: int) -> Iterator[bytes]:
    """Its events behind number `after` (-1: all), as server-sent events.

    There are fewer than were sent, as each text comes as one piece. So they are numbered anew, but for the
    last, which has the number that it had, and all of the response: whoever has read some of what was sent
    gets that one alone. Of a response whose server was stopped nobody knows it: it comes last all the same.
    """
    begun = [*_beginning(response), *_items(response.get("output") or [])]
    last = max(len(begun), last_event, after + 1 if last_event == UNKNOWN_EVENT else 0)
    for number, event in enumerate(begun):
        if number > after:
            yield _text(event, number)
    if last > after:
        yield _text({"type": f"response.{response['status']}", "response": response}, last)


def _text(event: Event, number: int) -> bytes:
    data = json_text.encode({**event, "sequence_number": number})
    return f"event: {event['type']}\ndata: ".encode() + data + b"\n\n"


def _beginning(response: Mapping[str, Any]) -> Iterator[Event]:
    empty = {**response, "output": [], "usage": None, "completed_at": None}
    empty |= {"error": None, "incomplete_details": None}
    for kind, status in (("created", "queued"), ("queued", "queued"), ("in_progress", "in_progress")):
        yield {"type": f"response.{kind}", "response": {**empty, "status": status}}


def _items(output: list[dict[str, Any]]) -> Iterator[Event]:
    for index, item in enumerate(output):
        begun = {**item, "status": "in_progress"}
        begun |= {key: type(item[key])() for key in ("content", "arguments") if key in item}
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        yield from _parts(item, {"item_id": item.get("id", ""), "output_index": index})
        yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _parts(item: dict[str, Any], place: Event) -> Iterator[Event]:
    if item.get("type") == "function_call":
        yield {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]}
        done = {"name": item["name"], "arguments": item["arguments"]}
        yield {"type": "response.function_call_arguments.done", **place, **done}
        return
    for index, part in enumerate(item.get("content") or []):
        where = {**place, "content_index": index}
        text = part.get("text", "")
        if part.get("type") == "reasoning_text":
            yield {"type": "response.reasoning_text.delta", **where, "delta": text}
            yield {"type": "response.reasoning_text.done", **where, "text": text}
            continue
        yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
        yield {"type": "response.output_text.delta", **where, "delta": text, "logprobs": []}
        yield {"type": "response.output_text.done", **where, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **where, "part": part}
