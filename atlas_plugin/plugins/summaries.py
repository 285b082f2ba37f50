"""Summarises the older part of a chat that comes near the end of the context: docs/cookbook/summaries.md."""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta, Struct

from atlas_plugin import AskError, CompletionRequest, Host, Modify, hookimpl, json_text
from atlas_plugin.metrics import Family, Sample

log = logging.getLogger(__name__)

Message = Mapping[str, Any]

_ROUTE = "/v1/chat/completions"
_REMEMBERED = 1024
"""Summaries in this process; all are saved besides, where anything is."""
_LOOKED_UP = 64
"""Beginnings of a chat that may have a summary from before, at most."""
_INTRODUCTION = "Summary of the conversation so far:\n"
_ORDER = (
    "Summarise the conversation above for yourself, to go on with it later. Keep names, numbers, decisions, "
    "and what was asked and promised. Write nothing else."
)


class Config(Struct, forbid_unknown_fields=True, frozen=True):
    """When, and how."""

    at: Annotated[float, Meta(gt=0, lt=1)] = 0.75
    """From which share of the context on."""
    keep: Annotated[int, Meta(ge=1, le=1000)] = 6
    """How many of the last messages stay as they are, at least."""
    tokens: Annotated[int, Meta(ge=16, le=4096)] = 400
    """Of a summary, at most; and an eighth of the context."""
    order: Annotated[str, Meta(min_length=1, max_length=4000)] = _ORDER
    """What the model is told to do."""
    timeout_s: Annotated[float, Meta(ge=1, le=55)] = 50.0
    """For all that one request has the model do."""


@dataclass(frozen=True)
class Beginning:
    """The first messages of a chat, up to where a user speaks, and the name of their summary."""

    end: int
    name: str


class Plugin:
    """Summarises the older part of a chat when it comes near the end of the context."""

    def __init__(self) -> None:
        self._config = Config()
        self._host: Host | None = None
        self._n_context = 0
        self._lock = threading.Lock()
        self._summaries: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._counts = {"made": 0, "used": 0}

    @hookimpl
    def configure(self, config: Config) -> None:
        self._config = config

    @hookimpl
    def startup(self, host: Host) -> None:
        self._host = host

    @hookimpl(deadline_ms=60000)
    def on_request(self, request: CompletionRequest, body: dict[str, Any]) -> Modify | None:
        messages: Any = body.get("messages")
        if request.route not in (_ROUTE, _ROUTE.removeprefix("/v1")) or not _is_chat(messages):
            return None
        if (body.get("atlas") or {}).get("history") == "server" or not self._is_near_the_end(body, messages):
            return None
        shorter = _Shortening(self, request.tenant, body).messages()
        return None if shorter is None else Modify({**body, "messages": shorter})

    @hookimpl
    def report_metrics(self) -> list[Family]:
        samples = [Sample({"what": what}, count) for what, count in self._counts.items()]
        text = "Summaries that were made, and requests that got one."
        return [Family("atlas_plugin_summaries_total", "counter", text, samples)]

    @property
    def config(self) -> Config:
        return self._config

    @property
    def host(self) -> Host:
        assert self._host is not None
        return self._host

    @property
    def n_context(self) -> int:
        """Tokens that one chat may have."""
        if not self._n_context:
            self._n_context = self.host.ask("/props")["default_generation_settings"]["n_ctx"]
        return self._n_context

    def _is_near_the_end(self, body: Mapping[str, Any], messages: Sequence[Message]) -> bool:
        # A token is a byte at least, so that most chats need not be counted.
        is_short = len(json_text.encode([messages, body.get("tools")])) < self.limit
        return not is_short and self.count(body, messages) > self.limit

    @property
    def limit(self) -> int:
        """Tokens from which on something is done."""
        return int(self.n_context * self.config.at)

    def count(self, body: Mapping[str, Any], messages: Sequence[Message]) -> int:
        """Tokens of the prompt with these messages."""
        what = {name: body[name] for name in ("tools", "chat_template_kwargs") if name in body}
        answer = self.host.ask(f"{_ROUTE}/input_tokens", {"messages": list(messages), **what})
        n_tokens: int = answer["input_tokens"]
        return n_tokens

    def known(self, tenant: str, name: str) -> str | None:
        """A summary that was made before, by this process or one before it."""
        with self._lock:
            if text := self._summaries.get((tenant, name)):
                self._summaries.move_to_end((tenant, name))
                return text
        try:
            text = str(self.host.memory.load(name, tenant=tenant)["state"]["summary"])
        except (AskError, KeyError, TypeError):
            return None
        self._remember(tenant, name, text)
        return text

    def add(self, tenant: str, name: str, text: str) -> None:
        """Remember and save one that was made."""
        self.counted("made")
        self._remember(tenant, name, text)
        try:
            self.host.memory.save(name, {"summary": text}, tenant=tenant)
        except AskError as error:
            if error.answered != 503:  # nothing is saved on this server
                log.warning("a summary could not be saved, and is made anew after a restart: %s", error)

    def drop(self, tenant: str, name: str) -> None:
        """Remove one that another has taken the place of."""
        with self._lock:
            self._summaries.pop((tenant, name), None)
        with suppress(AskError):
            self.host.memory.delete(name, tenant=tenant)

    def counted(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    def _remember(self, tenant: str, name: str, text: str) -> None:
        with self._lock:
            self._summaries[(tenant, name)] = text
            while len(self._summaries) > _REMEMBERED:
                self._summaries.popitem(last=False)


class _Shortening:
    """One chat that is to become shorter; one thread."""

    def __init__(self, plugin: Plugin, tenant: str, body: Mapping[str, Any]) -> None:
        self._plugin = plugin
        self._tenant = tenant
        self._body = body
        self._messages: list[Message] = body["messages"]
        self._n_instructions = next(
            (i for i, one in enumerate(self._messages) if one.get("role") not in ("system", "developer")), 0
        )
        self._beginnings = list(self._find_beginnings())

    def messages(self) -> list[Message] | None:
        """The chat with the summary of its beginning; None where there is no beginning that can go."""
        before = self._summarised_before()
        if before is not None:
            shorter = self._with(before[1], before[0].end)
            if self._plugin.count(self._body, shorter) <= self._plugin.limit:
                self._plugin.counted("used")
                return shorter
        fits = [one for one in self._beginnings if one.end <= len(self._messages) - self._plugin.config.keep]
        if not fits or (before is not None and fits[-1].end <= before[0].end):
            return None if before is None else self._with(before[1], before[0].end)
        begun, text = (before[0].end, before[1]) if before else (self._n_instructions, "")
        text = self._summarise(text, self._messages[begun : fits[-1].end])
        self._plugin.add(self._tenant, fits[-1].name, text)
        if before is not None:
            self._plugin.drop(self._tenant, before[0].name)
        self._plugin.counted("used")
        return self._with(text, fits[-1].end)

    def _find_beginnings(self) -> Iterator[Beginning]:
        digest = hashlib.sha256()
        for i, message in enumerate(self._messages):
            if i > self._n_instructions and message.get("role") == "user":
                yield Beginning(i, f"summary:{digest.hexdigest()}")
            text = json_text.encode(message)
            digest.update(len(text).to_bytes(8, "little") + text)

    def _summarised_before(self) -> tuple[Beginning, str] | None:
        for beginning in reversed(self._beginnings[-_LOOKED_UP:]):
            if text := self._plugin.known(self._tenant, beginning.name):
                return beginning, text
        return None

    def _with(self, summary: str, end: int) -> list[Message]:
        # Not all templates take a second instruction, so that the summary goes into the last one.
        said = _INTRODUCTION + summary
        instructions = list(self._messages[: self._n_instructions])
        if instructions:
            last = instructions.pop()
            instructions.append({**last, "content": f"{_text_of(last)}\n\n{said}"})
        else:
            instructions.append({"role": "system", "content": said})
        return [*instructions, *self._messages[end:]]

    def _summarise(self, summary: str, messages: Sequence[Message]) -> str:
        """The summary of what an earlier one says and of these, a piece that the context holds at a time."""
        plugin, config = self._plugin, self._plugin.config
        # The rest is for the summary before, the order and the answer.
        most = max(plugin.n_context // 2, 1)
        tokens = plugin.host.tokenize("\n\n".join(f"{one['role']}: {_text_of(one)}" for one in messages))
        for begin in range(0, len(tokens), most):
            piece = plugin.host.detokenize(tokens[begin : begin + most])
            before = f"{_INTRODUCTION}{summary}\n\n" if summary else ""
            answer = plugin.host.complete(
                f"{before}{piece}\n\n{config.order}",
                tenant=self._tenant,
                timeout_s=config.timeout_s,
                max_tokens=max(min(config.tokens, plugin.n_context // 8), 16),
                temperature=0,
                cache_prompt=False,
            )
            summary = (answer["choices"][0]["message"]["content"] or "").strip()
            if not summary:
                raise ValueError("the model gave an empty summary; the chat goes on as it is")
        return summary


def _is_chat(messages: Any) -> bool:
    return isinstance(messages, list) and all(
        isinstance(one, dict) and isinstance(one.get("role"), str) for one in messages
    )


def _text_of(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        text = content
    else:
        parts = content if isinstance(content, list) else []
        text = "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and "text" in part)
    calls = message.get("tool_calls")
    return f"{text}\n{json_text.encode(calls).decode()}".strip() if calls else text
