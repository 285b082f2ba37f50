"""What a hook on the path of requests may answer, and what the server gets of it. Pure: any thread."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atlas_plugin import facts, json_text
from atlas_plugin.completions import Identity, Modify, Pass, Reject, Respond
from atlas_plugin.http import Response


@dataclass(frozen=True)
class Step:
    """A step of ATLAS_STEP_…, and what goes with it."""

    number: int
    response: Response | None = None
    pieces: Sequence[Any] = ()
    """Bytes that follow the response's body, without being copied together."""


PASS = Step(facts.STEP_PASS)
FAIL = Step(facts.STEP_FAIL)


def _object(value: Any, body: bytes) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"the body is {type(value).__name__}, not a dict")
    return value


def _prompt(value: Any, body: bytes) -> Any:
    if not isinstance(value, str | list):
        raise TypeError(f"the prompt is {type(value).__name__}, not text, tokens or a list of prompts")
    return value


def _answer(value: Any, body: bytes) -> Any:
    if not isinstance(value, list if body.startswith(b"[") else Mapping):
        raise TypeError(f"the answer is {type(value).__name__}, which it was not")
    return value


def _events(value: Any, body: bytes) -> Any:
    if not isinstance(value, Sequence) or not all(isinstance(event, Mapping) for event in value):
        raise TypeError("the events are no list of dicts")
    return {**json_text.decode(body), "events": list(value)}


_MODIFIED: Mapping[str, Callable[[Any, bytes], Any]] = {
    "on_request": _object,
    "on_prompt": _prompt,
    "on_response": _answer,
    "on_stream_chunk": _events,
}
_RESPONDING = frozenset({"on_request", "on_prompt"})
_REFUSING = frozenset({*_MODIFIED, "authenticate"})


def step_of(hook: str, verdict: Any, body: bytes) -> Step:
    """The step that a verdict about the body means. Raises TypeError for what it may not be."""
    if verdict is None or isinstance(verdict, Pass):
        return PASS
    if hook == "authenticate" and isinstance(verdict, Identity):
        who = {"name": verdict.name, "is_admin": bool(verdict.is_admin)}
        return Step(facts.STEP_RESPOND, Response(body=who))
    if hook in _REFUSING and isinstance(verdict, Reject):
        return Step(facts.STEP_REJECT, Response(verdict.status, verdict.message, headers=verdict.headers))
    if hook in _MODIFIED:
        if isinstance(verdict, Modify):
            value = json_text.encode_strictly(_MODIFIED[hook](verdict.value, body))
            return Step(facts.STEP_MODIFY, Response(body=value))
        if isinstance(verdict, Respond) and hook in _RESPONDING:
            if not isinstance(verdict.answer, Response):
                raise TypeError(f"{hook} responded with {type(verdict.answer).__name__}, not Response")
            return Step(facts.STEP_RESPOND, verdict.answer)
    raise TypeError(f"{hook} returned {type(verdict).__name__}; it may return {_allowed(hook)}")


def _allowed(hook: str) -> str:
    if hook in _RESPONDING:
        return "None, Pass, Modify, Reject or Respond"
    if hook == "authenticate":
        return "None, Pass, Identity or Reject"
    return "None, Pass, Modify or Reject" if hook in _MODIFIED else "None"
