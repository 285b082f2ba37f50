"""The texts in requests, answers and streams of all completion routes: reading them, and replacing them.

Pure, but for `StreamTexts`, which is of one stream. Nothing that is handed over is changed.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

Replace = Callable[[str], str]

TextKey = tuple[Hashable, ...]
"""Names a text of a stream: its choice, block or item first, and last what it is, such as `content`."""

_IN_REQUESTS = (
    *("messages", "prompt", "input", "instructions", "system", "suffix", "chat_template_kwargs"),
    *("input_prefix", "input_suffix", "input_extra"),
)
# What stands under these names in a message is no text, but a choice, a reference, or data.
_NOT_TEXTS = frozenset(
    {
        *("type", "role", "id", "name", "status", "call_id", "tool_call_id", "tool_use_id", "signature"),
        *("url", "image_url", "file_url", "file_id", "input_audio", "data", "file_data", "media_type"),
        *("multimodal_data", "cache_control", "encrypted_content", "detail"),
    }
)
# What a model calls a tool with. Where it is an object, any name may stand in it, and any of them has text.
_ARGUMENTS = frozenset({"arguments", "input"})
_IN_ANSWERS = frozenset(
    {"content", "text", "reasoning_content", "thinking", "partial_json", "refusal", "delta", "prompt"}
)
# They hold the words of the answer too, in pieces.
_DETAILS = frozenset({"tokens", "logprobs", "completion_probabilities", "__verbose"})
# Told once of a tool that is called; an event that is made of an earlier one must not say it again.
_TOLD_ONCE = ("id", "type")
_OF_NO_TEXT = frozenset({"timings", "prompt_progress", "usage"})


class TextFilter(Protocol):
    """Makes another text of one that comes in pieces; it may hold text back."""

    def feed(self, text: str) -> str:
        """What can go on now, after the next piece came."""

    def end(self) -> str:
        """The rest."""


def in_request(body: Mapping[str, Any], replace: Replace) -> dict[str, Any]:
    """The body with each text that the model is to get replaced.

    These are those of messages, of tools that were called and of what they answered, prompts, instructions,
    variables of the template and descriptions of tools. Token ids, images and sound are left as they are.
    """
    texts = {name: _all(body[name], replace) for name in _IN_REQUESTS if name in body}
    tools = {"tools": _descriptions(body["tools"], replace)} if "tools" in body else {}
    return {**body, **texts, **tools}


def of_request(body: Mapping[str, Any]) -> Iterator[str]:
    """Each of these texts, in the order of `in_request`."""
    found: list[str] = []
    in_request(body, _kept_in(found))
    yield from found


def has_token_ids(body: Mapping[str, Any]) -> bool:
    """Whether a part of the prompt is no text but tokens, in which nothing can be found."""
    return any(_has_numbers(body.get(name)) for name in ("prompt", "input"))


def in_answer(answer: Any, replace: Replace) -> Any:
    """The answer of any route, or an event, with each text replaced: what the model wrote, and the prompt."""
    if isinstance(answer, list):
        return [in_answer(one, replace) for one in answer]
    if not isinstance(answer, Mapping):
        return answer
    return {name: _in_member(name, value, replace) for name, value in answer.items()}


def of_answer(answer: Any) -> Iterator[str]:
    """Each text that the model wrote, in order."""
    found: list[str] = []
    answers = answer if isinstance(answer, list) else [answer]
    in_answer([{**one, "prompt": None} for one in answers], _kept_in(found))
    yield from found


def of_event(event: Mapping[str, Any]) -> Iterator[tuple[TextKey, str]]:
    """The pieces of texts in an event of a stream, and of which text each is."""
    yield from ((piece.text, piece.holder[piece.field]) for piece in _pieces(event.get("data", event)))


def without_details(answer: Any) -> Any:
    """The answer, or event, without token ids and probabilities, which tell its words too: they are empty."""
    if isinstance(answer, list):
        return [without_details(one) for one in answer]
    if not isinstance(answer, Mapping):
        return answer
    return {
        name: ([] if isinstance(value, list) else None) if name in _DETAILS else without_details(value)
        for name, value in answer.items()
    }


class StreamTexts:
    """The texts of one stream, each through a filter of its own. One thread at a time.

    What a filter holds back comes with the event that ends the text, or in one of its own before it, or at
    the end of the stream. Whole texts that are told again, as in `response.completed`, are filtered, too.
    """

    def __init__(self, make: Callable[[], TextFilter]) -> None:
        self._make = make
        self._filters: dict[TextKey, TextFilter] = {}
        self._last: dict[TextKey, dict[str, Any]] = {}

    def chunk(self, events: Sequence[Mapping[str, Any]], is_last: bool) -> list[dict[str, Any]]:
        """The next events, as StreamChunk has them, with their texts filtered, and what was held back."""
        changed = [one for event in events for one in self._event(event)]
        return changed + (list(self._rest(())) if is_last else [])

    def _event(self, event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        changed = deepcopy(dict(event))
        pieces = {piece.text: piece.holder[piece.field] for piece in _pieces(changed.get("data", changed))}
        for text in pieces:
            self._last[text] = deepcopy(changed)
        for piece in _pieces(changed.get("data", changed)):
            piece.holder[piece.field] = ""
        changed = in_answer(changed, self._whole)
        data = changed.get("data", changed)
        endings = list(_endings(data))
        for piece in _pieces(data):
            filtered = self._filters.setdefault(piece.text, self._make()).feed(pieces[piece.text])
            if any(piece.text[: len(ending)] == ending for ending in endings):
                filtered += self._filters.pop(piece.text).end()
            piece.holder[piece.field] = filtered
        for ending in endings:
            yield from self._rest(ending)
        if endings or not pieces or _says_something(data):
            yield changed

    def _whole(self, text: str) -> str:
        if not text:
            return text
        one = self._make()
        return one.feed(text) + one.end()

    def _rest(self, ending: TextKey) -> Iterator[dict[str, Any]]:
        for text in [text for text in self._filters if text[: len(ending)] == ending]:
            if rest := self._filters.pop(text).end():
                yield _event_of(self._last[text], text, rest)


@dataclass(frozen=True)
class _Piece:
    """Where the next piece of a text stands in an event."""

    text: TextKey
    holder: dict[str, Any]
    field: str


def _pieces(data: Mapping[str, Any]) -> Iterator[_Piece]:
    kind = data.get("type")
    if isinstance(kind, str):
        if kind.endswith(".delta"):
            yield from _fields((data.get("item_id"), kind.removesuffix(".delta")), data, ("delta",))
        elif kind == "content_block_delta":
            yield from _fields((data.get("index"),), data["delta"], ("text", "thinking", "partial_json"))
    elif "choices" not in data:
        yield from _fields((data.get("index", 0),), data, ("content",))
    for choice in data.get("choices", ()):
        index = choice.get("index", 0)
        yield from _fields((index,), choice, ("text",))
        delta = choice.get("delta") or {}
        yield from _fields((index,), delta, ("content", "reasoning_content", "refusal"))
        for call in delta.get("tool_calls") or ():
            yield from _fields((index, call.get("index")), call.get("function", {}), ("arguments",))


def _fields(text: TextKey, holder: Any, fields: Sequence[str]) -> Iterator[_Piece]:
    yield from (_Piece((*text, name), holder, name) for name in fields if isinstance(holder.get(name), str))


def _endings(data: Mapping[str, Any]) -> Iterator[TextKey]:
    """The texts that end with this event, by how they begin."""
    kind = data.get("type")
    if isinstance(kind, str):
        if kind in ("response.completed", "message_stop"):
            yield ()
        elif kind == "response.output_item.done":
            yield (data.get("item", {}).get("id"),)
        elif kind.endswith(".done"):
            yield (data.get("item_id"), kind.removesuffix(".done"))
        elif kind == "content_block_stop":
            yield (data.get("index"),)
    elif data.get("stop") is True:
        yield (data.get("index", 0),)
    for choice in data.get("choices", ()):
        if choice.get("finish_reason") is not None:
            yield (choice.get("index", 0),)


def _says_something(data: Mapping[str, Any]) -> bool:
    """Whether an event is worth sending: one of which all text is held back may have nothing else."""
    if not _OF_NO_TEXT.isdisjoint(data) or any(piece.holder[piece.field] for piece in _pieces(data)):
        return True
    deltas = [choice.get("delta") or {} for choice in data.get("choices", ())]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    return any("role" in delta for delta in deltas) or any(
        "id" in call or "name" in call.get("function", {}) for call in calls
    )


def _event_of(event: Mapping[str, Any], text: TextKey, rest: str) -> dict[str, Any]:
    """An event like an earlier one, with nothing in it but the rest of a text."""
    made = deepcopy(dict(event))
    data = made.get("data", made)
    for piece in _pieces(data):
        piece.holder[piece.field] = rest if piece.text == text else ""
    for name in _OF_NO_TEXT & data.keys():
        del data[name]
    for choice in data.get("choices", ()):
        for call in (choice.get("delta") or {}).get("tool_calls") or ():
            for name in _TOLD_ONCE:
                call.pop(name, None)
            call.get("function", {}).pop("name", None)
    return made


def _in_member(name: str, value: Any, replace: Replace) -> Any:
    if name in _ARGUMENTS:
        return _everything(value, replace)
    if name in _IN_ANSWERS and isinstance(value, str):
        return replace(value)
    return in_answer(value, replace)


def _all(value: Any, replace: Replace) -> Any:
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, list):
        return [_all(one, replace) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {
        name: _everything(one, replace)
        if name in _ARGUMENTS
        else one
        if name in _NOT_TEXTS
        else _all(one, replace)
        for name, one in value.items()
    }


def _everything(value: Any, replace: Replace) -> Any:
    """Names and numbers too."""
    if isinstance(value, Mapping):
        return {replace(name): _everything(one, replace) for name, one in value.items()}
    if isinstance(value, list):
        return [_everything(one, replace) for one in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if replace(str(value)) == str(value) else replace(str(value))
    return replace(value) if isinstance(value, str) else value


def _descriptions(value: Any, replace: Replace) -> Any:
    if isinstance(value, list):
        return [_descriptions(one, replace) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {
        name: replace(one) if name == "description" and isinstance(one, str) else _descriptions(one, replace)
        for name, one in value.items()
    }


def _kept_in(found: list[str]) -> Replace:
    def keep(text: str) -> str:
        found.append(text)
        return text

    return keep


def _has_numbers(value: Any) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number or (isinstance(value, list) and any(map(_has_numbers, value)))
