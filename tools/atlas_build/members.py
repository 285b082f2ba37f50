"""Prints atlas-config.hpp for doxygen, with the members that the table of settings makes of it."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from atlas_build.facts import rows

_MADE = re.compile(r"^#define ATLAS_SETTING.*^#undef ATLAS_SETTING$", re.MULTILINE | re.DOTALL)


def expanded(header: str, table: str) -> str:
    """The header, in which a member stands for each setting of the table, behind a comment."""
    made = "\n".join(_members(table))
    return _MADE.sub(lambda _: made, header)


def _members(table: str) -> Iterator[str]:
    for name, kind, default, flag, variable, low, high, traits, text in rows(table):
        limits = "" if low == high == "0" else f" From {low} to {high}."
        live = " Can be changed while the server runs." if "live" in traits else ""
        says = re.sub(r"(--[\w-]+)", r"`\1`", json.loads(text))
        yield f"/// {says[0].upper()}{says[1:]}.{limits}{live}"
        yield f"/// As `--atlas-{json.loads(flag)}` and `ATLAS_{json.loads(variable)}`."
        yield f"{kind} {name} = {default};"


def main() -> None:
    """Print the header that is named by the argument; the table is beside it."""
    header = Path(sys.argv[1])
    table = header.with_name("atlas-settings.def")
    sys.stdout.write(expanded(header.read_text(encoding="utf-8"), table.read_text(encoding="utf-8")))
