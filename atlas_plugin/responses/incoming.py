"""Checks items that clients add to a conversation, as each later turn has them in its prompt.

Pure: any thread.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from atlas_plugin import json_text
from atlas_plugin.errors import ValidationError
from atlas_plugin.responses.forms import KINDS
from atlas_plugin.responses.items import Item, identified

MAX_ITEMS = 20
MAX_DEPTH = 64
"""Of arrays and objects in each other. Others are around an item wherever it is kept or sent."""
_ROLES = ("user", "assistant", "system", "developer")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TEXTS = ("input_text", "output_text")


def taken(items: Sequence[Any], known: set[str]) -> list[Item]:
    """The items as they are kept. `known` are the ids that the conversation has.

    Raises ValidationError, which names the field: `items[0].role`.
    """
    if len(items) > MAX_ITEMS:
        raise ValidationError(
            f"value must be at most {MAX_ITEMS} items: send the others after these", "items"
        )
    seen = set(known)
    for at, item in enumerate(items):
        _check(item, f"items[{at}]")
        if (item_id := item.get("id")) is not None:
            if item_id in seen:
                raise ValidationError(
                    f"there is an item '{item_id}' already: leave out the id", f"items[{at}].id"
                )
            seen.add(item_id)
    return identified(items)


def _check(item: Any, field: str) -> None:
    if not isinstance(item, dict):
        raise ValidationError("value must be an item: a JSON object", field)
    if json_text.is_deeper(item, MAX_DEPTH):
        raise ValidationError(f"nested deeper than {MAX_DEPTH} levels", field)
    item_id = item.get("id")
    if item_id is not None and not (isinstance(item_id, str) and _ID.fullmatch(item_id)):
        raise ValidationError("value must be 1-128 of A-Z a-z 0-9 . _ : -, or left out", f"{field}.id")
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind == "message":
        _check_message(item, field)
    elif kind == "function_call":
        _check_texts(item, ("call_id", "name", "arguments"), field)
        if not is_json(item["arguments"]):
            raise ValidationError("value must be JSON in a text", f"{field}.arguments")
    elif kind == "function_call_output":
        _check_texts(item, ("call_id",), field)
        _check_content(item.get("output"), f"{field}.output", ("input_text",))
    elif kind == "reasoning":
        _check_reasoning(item, field)
    else:
        raise ValidationError(f"value must be {', '.join(KINDS[:-1])} or {KINDS[-1]}", f"{field}.type")


def _check_message(item: Mapping[str, Any], field: str) -> None:
    role = item.get("role")
    if role not in _ROLES:
        raise ValidationError(f"value must be {', '.join(_ROLES[:-1])} or {_ROLES[-1]}", f"{field}.role")
    texts = _TEXTS if role == "assistant" else _TEXTS[:1]
    _check_content(item.get("content"), f"{field}.content", texts, has_images=role != "assistant")


def _check_content(content: Any, field: str, texts: Sequence[str], *, has_images: bool = True) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise ValidationError("value must be a text, or a list of parts", field)
    for at, part in enumerate(content):
        place = f"{field}[{at}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in texts:
            _check_texts(part, ("text",), place)
        elif kind == "input_image" and has_images:
            _check_texts(part, ("image_url",), place)
        else:
            kinds = (*texts, *(["input_image"] if has_images else []))
            raise ValidationError(f"value must be {' or '.join(kinds)}", f"{place}.type")


def _check_reasoning(item: Mapping[str, Any], field: str) -> None:
    for name in ("summary", "content"):
        parts = item.get(name)
        if parts is None and name == "content":
            continue
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise ValidationError("value must be a list of parts", f"{field}.{name}")


def _check_texts(value: Mapping[str, Any], names: Sequence[str], field: str) -> None:
    for name in names:
        if not isinstance(value.get(name), str):
            raise ValidationError("value must be a text", f"{field}.{name}")


def is_json(text: Any) -> bool:
    """Whether a text is JSON, as the arguments of a call have to be: templates take them apart."""
    try:
        json_text.decode(text)
    except (ValueError, TypeError):
        return False
    return True
