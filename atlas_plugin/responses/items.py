"""Items of OpenAI's Responses API: what a request says and a response answers. Pure: any thread."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from atlas_plugin.errors import ServerError, ValidationError
from atlas_plugin.storage.responses import Kept

Item = dict[str, Any]

_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}
MAX_PAGE = 100


def identified(items: Iterable[Mapping[str, Any]]) -> list[Item]:
    """The items of a request as they are kept: each has a type, an id and a status."""
    return [_identified(item) for item in items]


def _identified(item: Mapping[str, Any]) -> Item:
    kind = str(item.get("type") or "message")
    name = f"{_PREFIXES.get(kind, 'item')}_{secrets.token_hex(16)}"
    whole = {"id": name, "status": "completed", **item, "type": kind}
    if not isinstance(whole["id"], str) or not whole["id"]:
        whole["id"] = name
    content = whole.get("content")
    if kind == "message" and isinstance(content, str):
        part = "output_text" if whole.get("role") == "assistant" else "input_text"
        whole["content"] = [{"type": part, "text": content}]
    return whole


def output_of(kept: Kept) -> list[Item]:
    """What the model answered. Raises ServerError where the record is damaged."""
    return _response_of(kept).output


def conversation_of(kept: Kept) -> str:
    """The id of the conversation that it was answered in; empty: of none. Raises ServerError."""
    return (_response_of(kept).conversation or {}).get("id", "")


def _response_of(kept: Kept) -> "_Response":
    try:
        return msgspec.json.decode(kept.response, type=_Response)
    except (msgspec.MsgspecError, RecursionError):
        raise ServerError("a response is damaged: delete it") from None


def conversation(chain: Iterable[Kept]) -> list[Item]:
    """All that was asked and answered in responses that go on from each other, oldest first."""
    return [item for kept in chain for item in (*kept.input, *output_of(kept))]


def limit_of(query: Mapping[str, str]) -> int:
    """How many a page of a list has at most. Raises ValidationError, which names the parameter."""
    limit = query.get("limit", "20")
    # More digits than these are too many for int() already.
    if not (limit.isascii() and limit.isdecimal() and len(limit) <= 9 and 1 <= int(limit) <= MAX_PAGE):
        raise ValidationError(f"value must be between 1 and {MAX_PAGE}", "limit")
    return int(limit)


def is_descending(query: Mapping[str, str], default: str) -> bool:
    """Whether the newest of a list comes first. Raises ValidationError, which names the parameter."""
    order = query.get("order", default)
    if order not in ("asc", "desc"):
        raise ValidationError("value must be asc or desc", "order")
    return order == "desc"


def page(items: Sequence[Item], query: Mapping[str, str]) -> dict[str, Any]:
    """The page of a list that a query asks for. Raises ValidationError, which names the parameter."""
    limit = limit_of(query)
    ordered = list(reversed(items)) if is_descending(query, "desc") else list(items)
    if after := query.get("after"):
        place = next((i for i, item in enumerate(ordered) if item.get("id") == after), None)
        if place is None:
            raise ValidationError(f"there is no item '{after[:128]}' in this list", "after")
        ordered = ordered[place + 1 :]
    shown = ordered[:limit]
    return whole_list(shown, has_more=len(ordered) > len(shown))


def whole_list(items: Sequence[Item], *, has_more: bool = False) -> dict[str, Any]:
    """A list as an answer has it."""
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0].get("id") if items else None,
        "last_id": items[-1].get("id") if items else None,
        "has_more": has_more,
    }


class _Response(msgspec.Struct):
    output: list[Item] = []
    conversation: dict[str, str] | None = None
