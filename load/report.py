"""Tables and charts, as Markdown for docs/benchmarks.md and as one HTML page that needs nothing else."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import vl_convert

# Of Vega-Lite; vl-convert has those of several versions in it.
VEGA_LITE = "5.20"

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }}
table {{ border-collapse: collapse; margin: 1em 0 }}
td, th {{ border-bottom: 1px solid #ccc; padding: .3em .8em; text-align: right; vertical-align: top }}
td:first-child, th:first-child {{ text-align: left }}
svg {{ height: auto; max-width: 100% }}
</style>
<h1>{title}</h1>
{parts}
</html>
"""


@dataclass(frozen=True)
class Table:
    """Rows of Markdown, under a title; `note` says how to read them."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As docs/benchmarks.md has it."""
        lines = ["| " + " | ".join(row) + " |" for row in (self.header, *self.rows)]
        lines.insert(1, "|" + "---|" * len(self.header))
        return f"## {self.title}\n\n{self.note}\n\n" + "\n".join(lines) + "\n"

    def html(self) -> str:
        """The same, as a part of a page."""
        rows = [f"<tr>{''.join(f'<th>{_inline(cell)}</th>' for cell in self.header)}</tr>"]
        rows += [f"<tr>{''.join(f'<td>{_inline(cell)}</td>' for cell in row)}</tr>" for row in self.rows]
        return (
            f"<h2>{_inline(self.title)}</h2>\n<p>{_inline(self.note)}</p>\n<table>{''.join(rows)}</table>\n"
        )


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite specification, drawn when the page is made."""

    specification: Mapping[str, Any]

    def html(self) -> str:
        """As SVG."""
        return str(vl_convert.vegalite_to_svg(dict(self.specification), vl_version=VEGA_LITE))


def page(title: str, parts: Iterable[Table | Chart]) -> str:
    """A page of all parts in turn, which loads nothing."""
    return _PAGE.format(title=html.escape(title), parts="\n".join(part.html() for part in parts))


def _inline(text: str) -> str:
    """The little of Markdown that tables use: code and bold."""
    escaped = html.escape(text)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", escaped)
