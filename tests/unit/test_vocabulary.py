"""Names in the code follow docs/glossary.md: what it retired does not come back."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

SOURCES = {
    "native": (".h", ".hpp", ".c", ".cpp"),
    "atlas_plugin": (".py",),
}
# What is on the wire keeps the specification's words, and so do the names in the code that are a copy of it:
# the field of the `atlas` object, the members of atlas-abi.h's structs, llama.cpp's own names.
WIRE = re.compile(r"memory_layers|llama_\w+|\w*control_vector\w*|ATLAS_\w*LAYER\w*")
ABI = "atlas-abi.h"
ABI_FIELD = re.compile(
    r"what, layer, kind, strategy;|\b(?:event|evicted\[\d\])\.layer\b|\bmodel\.(?:layers|dev_layer)\b"
)
# Python's hooks give the number of a tier as `layer`, since plugins take it by that name, and its numbers of
# slots go by the names that they have in answers.
PYTHON_RETIRES = {"publish", "ticket", "gateway", "tainted", "doomed", "condemned", "ContextStore"}

_CPP = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|(?<![\w'])'(?:\\.|[^'\\\n])+'", re.DOTALL)
_PYTHON = re.compile(r"\"\"\".*?\"\"\"|#[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)


def retired_names(glossary: str) -> tuple[set[str], set[str]]:
    """The identifiers that the glossary's table retires, and the words: written `*_word_*` there."""
    table = glossary.partition("## Retired names")[2]
    first = " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    cells = re.findall(r"`([^`]+)`", first)
    words = {cell.strip("*_") for cell in cells if cell.startswith("*")}
    return {cell for cell in cells if not cell.startswith("*")}, words


def code_of(path: Path) -> str:
    """The text without comments and strings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return _PYTHON.sub('""', text)
    return ABI_FIELD.sub("", _CPP.sub('""', text))


def found_in(repository: Path) -> Iterator[str]:
    """A line for each retired name in a file, with the file."""
    names, words = retired_names((repository / "docs/glossary.md").read_text(encoding="utf-8"))
    for place, suffixes in SOURCES.items():
        for path in sorted((repository / place).rglob("*")):
            if path.suffix not in suffixes or path.name == ABI or "corpus" in path.parts:
                continue
            retired = names | words if place == "native" else (names | words) & PYTHON_RETIRES
            for name in sorted(set(re.findall(r"[A-Za-z_]\w*", code_of(path)))):
                if not WIRE.fullmatch(name) and retired & {name, *(words & set(name.lower().split("_")))}:
                    yield f"{path.relative_to(repository)}: {name}"


def test_no_retired_name_comes_back() -> None:
    assert list(found_in(REPOSITORY)) == []


def test_the_glossary_retires_names() -> None:
    names, words = retired_names((REPOSITORY / "docs/glossary.md").read_text(encoding="utf-8"))
    assert {"memory_ticket", "session_turns"} <= names
    assert {"publish", "layer"} <= words


if __name__ == "__main__":
    print("\n".join(found_in(Path(sys.argv[1]))))
