"""Passages out of documents, and into the bodies of chats. Pure: any thread."""

from collections.abc import Sequence
from typing import Any

from atlas_plugin.plugins._instructions import joined
from atlas_plugin.plugins.retrieval.collection import Passage

_CUTS = ("\n\n", "\n", ". ", " ")


def split(text: str, size: int) -> list[str]:
    """Passages of at most `size` characters, cut between paragraphs, lines, sentences or words if it can."""
    passages = []
    rest = text.strip()
    while len(rest) > size:
        # Of the second half, so that passages are not too short.
        found = (
            rest.rfind(cut, size // 2, size) + len(cut) for cut in _CUTS if cut in rest[size // 2 : size]
        )
        end = next(found, size)
        passages.append(rest[:end].strip())
        rest = rest[end:].strip()
    return [passage for passage in [*passages, rest] if passage]


def written(passages: Sequence[Passage], most: int) -> tuple[str, list[Passage]]:
    """The passages as the model reads them, those that fit into so many characters, and which these are."""
    parts: list[str] = []
    taken: list[Passage] = []
    left = most
    for passage in passages:
        part = f"[{len(taken) + 1}] {passage.title}\n{passage.text}" if passage.title else passage.text
        if len(part) <= left:
            parts.append(part)
            taken.append(passage)
            left -= len(part) + 2
    return "\n\n".join(parts), taken


def question_of(body: dict[str, Any]) -> str:
    """The text of the last message of the user; empty: there is none."""
    place = _last_of_the_user(body)
    if place is None:
        return ""
    field, index = place
    return _text(body[field] if index is None else body[field][index].get("content"))


def before_the_question(body: dict[str, Any], text: str) -> dict[str, Any]:
    """The body with the text before that of the user's last message."""
    place = _last_of_the_user(body)
    if place is None:
        return body
    field, index = place
    if index is None:
        return {**body, field: joined(body[field], text, "before")}
    messages = list(body[field])
    kind = "input_text" if field == "input" else "text"
    content = joined(messages[index].get("content"), text, "before", kind)
    messages[index] = {**messages[index], "content": content}
    return {**body, field: messages}


def _last_of_the_user(body: dict[str, Any]) -> tuple[str, int | None] | None:
    field = "messages" if "messages" in body else "input"
    messages = body.get(field)
    if isinstance(messages, str) and field == "input":
        return field, None
    if isinstance(messages, list):
        for index in range(len(messages) - 1, -1, -1):
            message = messages[index]
            if isinstance(message, dict) and message.get("role") == "user" and _text(message.get("content")):
                return field, index
    return None


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(part for part in parts if isinstance(part, str))
