"""Redacts a text that comes in pieces, however it is cut: the same comes out as of the whole.

A text is runs and what stands between them. What is looked for lies within a run, so that only the run at the
end, which may go on, has to wait. A run that is very long is looked at in windows that overlap: what is found
in the first half of one counts, as it ends in the second. Where windows lie depends on the text alone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atlas_plugin.plugins.pii.patterns import MAX_MATCH, Find, Span, united
from atlas_plugin.texts import TextFilter

_LEFT = 64
"""How many characters before a window expressions can look back at."""


@dataclass(frozen=True)
class Runs:
    """How a text is parted into runs."""

    rest: re.Pattern[str]
    """Of a run, all from some place in it on that is there; the next character may be part of it."""
    is_open: re.Pattern[str]
    """Behind `rest`: it cannot be said yet whether the run goes on."""
    between: re.Pattern[str]
    """What is between runs, all of it that is there for sure."""
    between_at_end: re.Pattern[str]
    """The same where nothing follows."""
    max_match: int
    """Characters that what is found has at most; what is longer may be cut."""


# A space is within a run where numbers are written in groups, such as those of an IBAN or a telephone.
_IN_WORD = r"\w.%+'@:/()\-"
_JOIN = r"(?<=[0-9A-Z)])[ \u00a0\u202f]"
# The n of \n in a string of JSON, as arguments of tools are, is no part of the word behind it.
_ESCAPE = r'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])'
_BROKEN_ESCAPE = r"\\(?:u[0-9a-fA-F]{0,3})?\Z"

# A word in which none of the known kinds begins. It counts as what is between runs, as most are so.
_PLAIN = rf"(?:(?![\d@])[{_IN_WORD}]){{1,30}}(?=[^{_IN_WORD}])"


def _words(between: str) -> Runs:
    return Runs(
        rest=re.compile(rf"(?:[{_IN_WORD}]+|{_JOIN}(?=[0-9A-Z(+]))*"),
        is_open=re.compile(rf"(?:{_JOIN})?\Z"),
        between=re.compile(rf"(?:{_ESCAPE}|(?!{_BROKEN_ESCAPE})[^{_IN_WORD}]{between})*"),
        between_at_end=re.compile(rf"(?:{_ESCAPE}|[^{_IN_WORD}]{between})*"),
        max_match=MAX_MATCH,
    )


WORDS = _words("")
TELLING_WORDS = _words(f"|{_PLAIN}")
"""For what is found by `patterns.known` only."""
_LINE = re.compile(r"[^\r\n]*")
_LINE_ENDS = re.compile(r"[\r\n]*")
LINES = Runs(_LINE, re.compile(r"\Z"), _LINE_ENDS, _LINE_ENDS, max_match=1024)


class Redaction:
    """A filter that puts `replacement(span)` in the place of what `find` finds within runs."""

    def __init__(self, runs: Runs, find: Find, replacement: Callable[[Span], str]) -> None:
        self._runs, self._find, self._replacement = runs, find, replacement
        self._text = ""
        """What waits, behind some of what went on."""
        self._at = 0
        """Where in it that begins which waits."""
        self._run: int | None = None
        """Where the run began that this is in, as far as it is still there."""

    def feed(self, text: str) -> str:
        """What can go on now, after the next piece came."""
        self._text += text
        return self._advance(is_end=False)

    def end(self) -> str:
        """The rest."""
        return self._advance(is_end=True)

    def _advance(self, is_end: bool) -> str:
        runs, text, out = self._runs, self._text, []
        between = runs.between_at_end if is_end else runs.between
        while True:
            if self._run is None:
                end = _end(between, text, self._at)
                out.append(text[self._at : end])
                self._at = end
                if _end(runs.rest, text, end) == end:
                    break
                self._run = end
            end = _end(runs.rest, text, self._at)
            while end - self._at >= 2 * runs.max_match:
                out.append(self._window(self._at + 2 * runs.max_match, self._at + runs.max_match))
            if not is_end and runs.is_open.match(text, end):
                if self._at == self._run:
                    # Where it begins is decided again when there is more.
                    self._run = None
                break
            out.append(self._window(end, end))
            self._run = None
        self._forget()
        return "".join(out)

    def _window(self, end: int, limit: int) -> str:
        """Redact what begins before `limit`, and go on behind it."""
        assert self._run is not None
        first = max(self._run, self._at - _LEFT)
        spans = united(self._find(self._text[first:end], self._at - first))
        out = []
        for span in spans:
            if first + span.start < limit:
                out += [self._text[self._at : first + span.start], self._replacement(span)]
                self._at = first + span.end
        if self._at < limit:
            out.append(self._text[self._at : limit])
            self._at = limit
        return "".join(out)

    def _forget(self) -> None:
        gone = max(0, self._at - _LEFT)
        self._text = self._text[gone:]
        self._at -= gone
        if self._run is not None:
            self._run = max(0, self._run - gone)


class Chain:
    """Filters, each of what the one before it lets go."""

    def __init__(self, filters: Sequence[TextFilter]) -> None:
        self._filters = filters

    def feed(self, text: str) -> str:
        """What can go on now, after the next piece came."""
        for one in self._filters:
            text = one.feed(text)
        return text

    def end(self) -> str:
        """The rest."""
        text = ""
        for one in self._filters:
            text = one.feed(text) + one.end()
        return text


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None, "it matches the empty text"
    return match.end()
