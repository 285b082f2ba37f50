"""Redacts personal data in requests and answers: docs/cookbook/pii.md."""

import re
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from atlas_plugin import CompletionRequest, Modify, Reject, StreamChunk, hookimpl
from atlas_plugin.metrics import Family, Sample
from atlas_plugin.plugins.pii import presidio
from atlas_plugin.plugins.pii.patterns import Find, Span, known, regex
from atlas_plugin.plugins.pii.presidio import Presidio
from atlas_plugin.plugins.pii.runs import LINES, TELLING_WORDS, WORDS, Chain, Redaction, Runs
from atlas_plugin.texts import (
    StreamTexts,
    TextFilter,
    has_token_ids,
    in_answer,
    in_request,
    of_request,
    without_details,
)

_PRIORITY = 500
"""Behind plugins that change texts, before those that keep them."""

Kind = Literal["email", "phone", "iban", "card", "ip"]


class Pattern(Struct, forbid_unknown_fields=True, frozen=True):
    """A regular expression of the operator's."""

    name: Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_-]{0,39}$")]
    """What stands in the place of what it matches."""
    regex: Annotated[str, Meta(min_length=1, max_length=2000)]
    within: Literal["line", "word"] = "line"
    """Where it matches; what is within words holds streams up for less."""


class Config(Struct, forbid_unknown_fields=True, frozen=True):
    """What is redacted, and where."""

    kinds: tuple[Kind, ...] = ("email", "phone", "iban", "card", "ip")
    patterns: Annotated[list[Pattern], Meta(max_length=100)] = []
    presidio: Presidio | None = None
    """What else it is to find; without it, patterns find all."""
    requests: bool = True
    """Whether the model gets requests redacted."""
    answers: bool = True
    """Whether clients get answers redacted."""
    replacement: Annotated[str, Meta(max_length=100)] = "[{kind}]"
    """What stands in the place of what is found."""
    max_characters: Annotated[int, Meta(ge=1000, le=100_000_000)] = 1_000_000
    """Of all texts of a request; one with more is refused with 413."""


class Plugin:
    """Redacts personal data in requests and answers, streams included."""

    def __init__(self) -> None:
        self._config = Config()
        self._words: Find = known(self._config.kinds)
        self._runs: Runs = TELLING_WORDS
        self._lines: Find | None = None
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    @hookimpl
    def configure(self, config: Config) -> None:
        self._config = config
        words: list[Find] = [known(config.kinds)]
        lines: list[Find] = []
        for number, pattern in enumerate(config.patterns):
            found = regex(pattern.name, _compiled(f"patterns[{number}].regex", pattern.regex))
            (words if pattern.within == "word" else lines).append(found)
        if config.presidio is not None:
            lines.append(presidio.finder(presidio.load(config.presidio), config.presidio))
        self._words = _all_of(words)
        self._runs = TELLING_WORDS if len(words) == 1 else WORDS
        self._lines = _all_of(lines) if lines else None

    @hookimpl(deadline_ms=10_000, fails="closed", priority=_PRIORITY)
    def on_request(self, request: CompletionRequest, body: dict[str, Any]) -> Modify | Reject | None:
        if not self._config.requests:
            return None
        if has_token_ids(body):
            return Reject(400, "the prompt must be text: in token ids no personal data can be found")
        if sum(map(len, of_request(body))) > self._config.max_characters:
            return Reject(
                413, f"the texts of a request have {self._config.max_characters} characters at most"
            )
        changed = in_request(body, partial(self._redacted, "request"))
        return Modify(changed) if changed != body else None

    @hookimpl(deadline_ms=10_000, fails="closed", priority=_PRIORITY)
    def on_response(self, request: CompletionRequest, answer: Any) -> Modify | None:
        if not self._config.answers:
            return None
        return Modify(in_answer(without_details(answer), partial(self._redacted, "answer")))

    @hookimpl(deadline_ms=10_000, fails="closed", priority=_PRIORITY)
    def on_stream_chunk(self, request: CompletionRequest, chunk: StreamChunk) -> Modify | None:
        if not self._config.answers:
            return None
        texts = request.state.get("pii")
        if texts is None:
            texts = request.state["pii"] = StreamTexts(partial(self._filter, "answer"))
        events = [without_details(event) for event in chunk.events]
        return Modify(texts.chunk(events, chunk.is_last))

    @hookimpl
    def report_metrics(self) -> list[Family]:
        with self._lock:
            samples = [
                Sample({"where": w, "kind": k}, count) for (w, k), count in sorted(self._counts.items())
            ]
        return [Family("atlas_plugin_pii_total", "counter", "What was redacted, by what it was.", samples)]

    def _redacted(self, where: str, text: str) -> str:
        one = self._filter(where)
        return one.feed(text) + one.end()

    def _filter(self, where: str) -> TextFilter:
        replacement = self._replacement(where)
        words = Redaction(self._runs, self._words, replacement)
        return words if self._lines is None else Chain([words, Redaction(LINES, self._lines, replacement)])

    def _replacement(self, where: str) -> Callable[[Span], str]:
        def replacement(span: Span) -> str:
            with self._lock:
                self._counts[where, span.kind] += 1
            return self._config.replacement.replace("{kind}", span.kind.upper())

        return replacement


def _compiled(field: str, text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"{field}: {error}") from None
    if pattern.match(""):
        raise ValueError(f"{field}: it matches the empty text")
    return pattern


def _all_of(finds: list[Find]) -> Find:
    return lambda text, start: [span for find in finds for span in find(text, start)]
