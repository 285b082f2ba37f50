"""Refuses, or logs, requests that break the operator's rules: docs/cookbook/guard.md."""

import logging
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from atlas_plugin import CompletionRequest, Reject, hookimpl
from atlas_plugin.metrics import Family, Sample
from atlas_plugin.texts import has_token_ids, of_request

log = logging.getLogger(__name__)

_FIRST = -500
"""Before plugins that add to requests: rules are about what the client sent."""
_EXCERPT = 200
_CONDITIONS = (
    *("deny", "allow", "max_characters", "max_messages"),
    *("models", "routes", "fields", "denied_fields", "denied_roles"),
)
# They show nothing, and part a word for whoever looks for it.
_INVISIBLE = re.compile(r"[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
# Whose texts are those that stand in no message.
_ROLES = {"system": "system", "instructions": "system", "tools": "tools", "chat_template_kwargs": "template"}
_NO_MESSAGES = ("tools", "template")
_ROLES_OF_ITEMS = {"function_call": "assistant", "reasoning": "assistant", "function_call_output": "tool"}
_LISTS = ("messages", "input", "prompt")

Names = Annotated[list[Annotated[str, Meta(min_length=1, max_length=200)]], Meta(max_length=1000)]
Regex = Annotated[str, Meta(min_length=1, max_length=10_000)]
Count = Annotated[int, Meta(ge=0, le=1 << 40)]


class Rule(Struct, forbid_unknown_fields=True, frozen=True):
    """A condition, and what becomes of a request that does not meet it."""

    name: Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_-]{0,39}$")]
    action: Literal["reject", "log"] = "reject"
    message: Annotated[str, Meta(max_length=1000)] = ""
    """What the client gets; empty: that the request breaks the rule of this name."""
    status: Annotated[int, Meta(ge=400, le=499)] = 400
    roles: Names | None = None
    """Of `deny`, `allow`, `max_characters`, `max_messages`: whose messages count; none: all."""

    deny: Regex | None = None
    """Nothing in a message may match."""
    allow: Regex | None = None
    """Each message must match as a whole."""
    max_characters: Count | None = None
    """Of all messages together."""
    max_messages: Count | None = None
    models: Names | None = None
    """Which `model` a request may name."""
    routes: Names | None = None
    fields: Names | None = None
    """Which fields the body may have."""
    denied_fields: Names | None = None
    denied_roles: Names | None = None
    """Whose messages a client may not send, such as `system`."""


class Config(Struct, forbid_unknown_fields=True, frozen=True):
    """The rules, in the order in which they are checked."""

    rules: Annotated[list[Rule], Meta(min_length=1, max_length=1000)]
    log_texts: bool = False
    """Whether the log has what broke a rule, 200 characters of it."""


@dataclass(frozen=True)
class _Asked:
    """What rules look at."""

    route: str
    body: Mapping[str, Any]
    messages: list[tuple[str, str]]
    """Role and text."""


_Check = Callable[[_Asked], str | None]
"""What breaks the rule; None: nothing does."""


class Plugin:
    """Refuses, or logs, requests that break the operator's rules."""

    def __init__(self) -> None:
        self._rules: list[tuple[Rule, _Check]] = []
        self._log_texts = False
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    @hookimpl
    def configure(self, config: Config) -> None:
        for number, rule in enumerate(config.rules):
            if rule.name in self._counts:
                raise ValueError(f"rules[{number}].name: there is a rule {rule.name} already")
            self._rules.append((rule, _check_of(rule, f"rules[{number}]")))
            self._counts[rule.name] = 0
        self._log_texts = config.log_texts

    @hookimpl(deadline_ms=1000, fails="closed", priority=_FIRST)
    def on_request(self, request: CompletionRequest, body: dict[str, Any]) -> Reject | None:
        asked = _Asked(_short(request.route), body, list(_messages(body)))
        for rule, check in self._rules:
            broken_by = check(asked)
            if broken_by is None:
                continue
            self._note(request, rule, broken_by)
            if rule.action == "reject":
                return Reject(rule.status, rule.message or f"the request breaks the rule '{rule.name}'")
        return None

    @hookimpl
    def report_metrics(self) -> list[Family]:
        with self._lock:
            samples = [
                Sample({"rule": rule.name, "action": rule.action}, self._counts[rule.name])
                for rule, _ in self._rules
            ]
        about = "Requests that broke a rule, by the rule and what became of them."
        return [Family("atlas_plugin_guard_total", "counter", about, samples)]

    def _note(self, request: CompletionRequest, rule: Rule, broken_by: str) -> None:
        with self._lock:
            self._counts[rule.name] += 1
        # As Python writes text: a client chose the id, and what it sent.
        said = f": {broken_by[:_EXCERPT]!r}" if self._log_texts else ""
        log.warning(
            "guard: request %r of tenant %r breaks the rule %s (%s)%s",
            request.request_id,
            request.tenant,
            rule.name,
            rule.action,
            said,
        )


def _check_of(rule: Rule, place: str) -> _Check:
    """The check of the one condition that the rule has. Raises ValueError."""
    given = [name for name in _CONDITIONS if getattr(rule, name) is not None]
    if len(given) != 1:
        raise ValueError(f"{place}: a rule has one of {', '.join(_CONDITIONS)}; it has {given or 'none'}")
    (condition,) = given
    if condition in ("deny", "allow"):
        pattern = _compiled(getattr(rule, condition), f"{place}.{condition}")
        return _of_texts(rule, _denied(pattern) if condition == "deny" else _allowed(pattern))
    if condition == "max_characters":
        return _of_texts(rule, _at_most(rule.max_characters or 0, lambda text: len(text)))
    if condition == "max_messages":
        return lambda asked: _at_most(rule.max_messages or 0, lambda _: 1)(
            _counted(rule, asked, _NO_MESSAGES)
        )
    if rule.roles is not None:
        raise ValueError(f"{place}.roles: they are of no use to {condition}")
    return _of_request(condition, frozenset(getattr(rule, condition)))


def _of_request(condition: str, names: frozenset[str]) -> _Check:
    if condition == "models":
        return lambda asked: _outside([asked.body.get("model")] if asked.body.get("model") else [], names)
    if condition == "routes":
        short = frozenset(map(_short, names))
        return lambda asked: _outside([asked.route], short)
    if condition == "fields":
        return lambda asked: _outside(asked.body, names)
    if condition == "denied_fields":
        return lambda asked: next((name for name in asked.body if name in names), None)
    lower = frozenset(name.strip().lower() for name in names)
    return lambda asked: next((role for role, _ in asked.messages if role in lower), None)


def _of_texts(rule: Rule, check: Callable[[list[str]], str | None]) -> _Check:
    def of_texts(asked: _Asked) -> str | None:
        # In these nothing can be found, nor are they characters.
        return "token ids" if has_token_ids(asked.body) else check(_counted(rule, asked))

    return of_texts


def _counted(rule: Rule, asked: _Asked, without: tuple[str, ...] = ()) -> list[str]:
    """The texts of the messages that the rule is for."""
    return [
        text
        for role, text in asked.messages
        if (rule.roles is None or role in rule.roles) and role not in without
    ]


def _denied(pattern: re.Pattern[str]) -> Callable[[list[str]], str | None]:
    def check(texts: list[str]) -> str | None:
        found = (pattern.search(_plain(text)) for text in texts)
        return next((match[0] for match in found if match), None)

    return check


def _allowed(pattern: re.Pattern[str]) -> Callable[[list[str]], str | None]:
    return lambda texts: next((text for text in texts if not pattern.fullmatch(_plain(text))), None)


def _at_most(limit: int, size: Callable[[str], int]) -> Callable[[list[str]], str | None]:
    def check(texts: list[str]) -> str | None:
        total = sum(map(size, texts))
        return f"{total}" if total > limit else None

    return check


def _outside(values: Any, names: frozenset[str]) -> str | None:
    return next((f"{value}" for value in values if value not in names), None)


def _plain(text: str) -> str:
    """Other forms of the same letters are one, and what is not seen is away."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def _messages(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Role and text of each message, and of what else the model is to get."""
    for name, value in body.items():
        items = value if name in _LISTS and isinstance(value, list) else [value]
        for item in items:
            texts = list(of_request({name: [item] if items is value else item}))
            if name in _LISTS and isinstance(item, Mapping):
                yield _role_of(item), "\n".join(texts)
            elif texts:
                yield _ROLES.get(name, "user"), "\n".join(texts)


def _role_of(item: Mapping[str, Any]) -> str:
    role = item.get("role") or _ROLES_OF_ITEMS.get(str(item.get("type"))) or "user"
    return f"{role}".strip().lower()


def _short(route: str) -> str:
    """Routes are the same with and without /v1 in front, where there are both."""
    return route.removeprefix("/v1")


def _compiled(text: str, field: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{field}: {error}") from None
