"""Gives requests a system prompt, by whose they are and which model they ask."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from atlas_plugin.completions import CompletionRequest, Modify
from atlas_plugin.errors import PluginError
from atlas_plugin.hookspecs import hookimpl
from atlas_plugin.plugins._callers import presented_key
from atlas_plugin.plugins._instructions import Mode, change_of

_NAME = "prompts"
_MAX_CHARACTERS = 1 << 20
# A machine that is busy for a moment is no reason to refuse.
_DEADLINE_MS = 5_000


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

    @hookimpl(deadline_ms=_DEADLINE_MS, fails="closed")
    def on_request(self, request: CompletionRequest, body: dict[str, Any]) -> Modify | None:
        change = change_of(request.route)
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
        and (not rule.names or request.name in rule.names)
        and (not rule.tenants or request.tenant in rule.tenants)
        and (not rule.keys_sha256 or digest in rule.keys_sha256)
    )
