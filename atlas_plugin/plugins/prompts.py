"""Gives requests a system prompt, by whose they are and which model they ask."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from atlas_plugin.completions import CompletionRequest, Modify
from atlas_plugin.errors import PluginError
from atlas_plugin.hookspecs import hookimpl
from atlas_plugin.plugins._callers import presented_key

_NAME = "prompts"
_MAX_CHARACTERS = 1 << 20
_INSTRUCTING = ("system", "developer")
_JOINT = "\n\n"

Mode = Literal["before", "after", "replace"]


class Rule(Struct, forbid_unknown_fields=True, frozen=True):
    """A prompt, as `text` or in a file, and what it is for: all of the lists that are not empty must fit."""

    text: Annotated[str, Meta(max_length=_MAX_CHARACTERS)] = ""
    file: str = ""
    mode: Mode = "before"
    """How it stands to the client's own: before or after it, or in its place."""
    models: list[str] = []
    """What the request names as `model`."""
    names: list[str] = []
    """Of the tokens that the plugin `bearer` let in."""
    tenants: list[Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]] = []
    keys_sha256: list[Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]] = []
    """SHA-256 of API keys, so that the configuration holds no secrets."""

    def __post_init__(self) -> None:
        if bool(self.text) == bool(self.file):
            raise ValueError("text or file must be given, and not both")


class Config(Struct, forbid_unknown_fields=True, frozen=True):
    """The first rule that fits counts."""

    rules: Annotated[list[Rule], Meta(min_length=1)]


class Plugin:
    """System prompts of the operator's choice."""

    @hookimpl
    def configure(self, config: Config) -> None:
        self._rules = [(rule, _text(number, rule)) for number, rule in enumerate(config.rules)]

    @hookimpl(fails="closed")
    def on_request(self, request: CompletionRequest, body: dict[str, Any]) -> Modify | None:
        change = _CHANGES.get(request.route.removeprefix("/v1"))
        if change is None:
            return None
        for rule, text in self._rules:
            if _fits(rule, request, body):
                return Modify(change(body, text, rule.mode))
        return None


def _text(number: int, rule: Rule) -> str:
    if not rule.file:
        return rule.text
    try:
        text = Path(rule.file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise PluginError(_NAME, f"wrong configuration: rules[{number}].file: {error}") from None
    if not 0 < len(text) <= _MAX_CHARACTERS:
        raise PluginError(_NAME, f"wrong configuration: rules[{number}].file is empty, or far too long")
    return text


def _fits(rule: Rule, request: CompletionRequest, body: dict[str, Any]) -> bool:
    digest = hashlib.sha256(presented_key(request.headers).encode()).hexdigest() if rule.keys_sha256 else ""
    return (
        (not rule.models or body.get("model") in rule.models)
        and (not rule.names or request.state.get("bearer") in rule.names)
        and (not rule.tenants or request.tenant in rule.tenants)
        and (not rule.keys_sha256 or digest in rule.keys_sha256)
    )


# All of these make one system message of ours and the client's, as many templates take no second one.


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
    return {**body, "system": _joined(own, text, mode)}


def _responses(body: dict[str, Any], text: str, mode: Mode) -> dict[str, Any]:
    own, items = body.get("instructions"), body.get("input")
    if isinstance(items, list) and mode == "replace":
        return {**body, "instructions": text, "input": _without_instructions(items)}
    if isinstance(items, list) and items and not own and _is_instruction(items[0]):
        return {**body, "input": [_extended(items[0], text, mode, "input_text"), *items[1:]]}
    return {**body, "instructions": _joined(own, text, mode)}


def _extended(message: dict[str, Any], text: str, mode: Mode, kind: str = "text") -> dict[str, Any]:
    return {**message, "content": _joined(message.get("content"), text, mode, kind)}


def _joined(own: Any, text: str, mode: Mode, kind: str = "text") -> Any:
    """The client's instructions, as text or in parts, with ours."""
    if mode == "replace" or not own:
        return text
    if isinstance(own, str):
        return _JOINT.join([text, own] if mode == "before" else [own, text])
    if isinstance(own, list):
        part = {"type": kind, "text": text + _JOINT if mode == "before" else _JOINT + text}
        return [part, *own] if mode == "before" else [*own, part]
    # What is neither is for the server to refuse.
    return own


def _is_instruction(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in _INSTRUCTING


def _without_instructions(messages: list[Any]) -> list[Any]:
    return [message for message in messages if not _is_instruction(message)]


_CHANGES = {"/chat/completions": _chat, "/responses": _responses, "/messages": _anthropic}
