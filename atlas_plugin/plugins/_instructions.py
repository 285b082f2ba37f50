"""Instructions in the bodies of chats: ours beside the client's, as each route has them.

They make one system message of both, as many templates take no second one. Pure: any thread.
"""

from collections.abc import Callable
from typing import Any, Literal

_INSTRUCTING = ("system", "developer")
_JOINT = "\n\n"

Mode = Literal["before", "after", "replace"]


def change_of(route: str) -> Callable[[dict[str, Any], str, Mode], dict[str, Any]] | None:
    """What makes a body with the text in it, for that route; None: it has no instructions."""
    return _CHANGES.get(route.removeprefix("/v1"))


def joined(own: Any, text: str, mode: Mode, kind: str = "text") -> Any:
    """Content of the client's, as text or in parts of that kind, with ours."""
    if mode == "replace" or not own:
        return text
    if isinstance(own, str):
        return _JOINT.join([text, own] if mode == "before" else [own, text])
    if isinstance(own, list):
        part = {"type": kind, "text": text + _JOINT if mode == "before" else _JOINT + text}
        return [part, *own] if mode == "before" else [*own, part]
    # What is neither is for the server to refuse.
    return own


def _chat(body: dict[str, Any], text: str, mode: Mode) -> dict[str, Any]:
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body
    if mode == "replace":
        messages = _without_instructions(messages)
    elif messages and _is_instruction(messages[0]):
        return {**body, "messages": [_extended(messages[0], text, mode), *messages[1:]]}
    return {**body, "messages": [{"role": "system", "content": text}, *messages]}


def _anthropic(body: dict[str, Any], text: str, mode: Mode) -> dict[str, Any]:
    own, messages = body.get("system"), body.get("messages")
    if mode == "replace" and isinstance(messages, list):
        return {**body, "system": text, "messages": _without_instructions(messages)}
    if isinstance(own, str) and own:
        # The server looks for Claude Code's billing header, which changes each time, at a part's beginning.
        own = [{"type": "text", "text": own}]
    return {**body, "system": joined(own, text, mode)}


def _responses(body: dict[str, Any], text: str, mode: Mode) -> dict[str, Any]:
    own, items = body.get("instructions"), body.get("input")
    if isinstance(items, list) and mode == "replace":
        return {**body, "instructions": text, "input": _without_instructions(items)}
    if isinstance(items, list) and items and not own and _is_instruction(items[0]):
        return {**body, "input": [_extended(items[0], text, mode, "input_text"), *items[1:]]}
    return {**body, "instructions": joined(own, text, mode)}


def _extended(message: dict[str, Any], text: str, mode: Mode, kind: str = "text") -> dict[str, Any]:
    return {**message, "content": joined(message.get("content"), text, mode, kind)}


def _is_instruction(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in _INSTRUCTING


def _without_instructions(messages: list[Any]) -> list[Any]:
    return [message for message in messages if not _is_instruction(message)]


_CHANGES = {"/chat/completions": _chat, "/responses": _responses, "/messages": _anthropic}
