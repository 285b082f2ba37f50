"""Writes the table in docs/memory.md of what `make test-archs` found to be reused."""

import argparse
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / "build-reports/matrix.json"
PAGE = ROOT / "docs/memory.md"
BEGIN, END = "<!-- tools/matrix writes what follows -->\n", "<!-- up to here -->\n"

WAYS = ["plain", "projector", "LoRA", "n-gram", "draft", "MTP"]

# What each model stands for.
KINDS = {
    "llama-dense": "plain KV",
    "deepseek2-moe": "MLA",
    "gemma3-dense": "sliding window",
    "gpt-oss-moe": "sliding window, with sinks",
    "llama4-moe": "chunks",
    "lfm2-dense": "hybrid, convolutions",
    "qwen35-dense": "hybrid, linear attention",
    "mamba-dense": "recurrent",
    "deepseek4-moe": "whole",
}


def table(found: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Markdown: a row for each kind of state, and one with the least of all architectures."""
    ways = sorted({way for cells in found.values() for way in cells}, key=WAYS.index)

    def cell(what: dict[str, float] | None) -> str:
        if what is None:
            return "none"
        return ", ".join(f"{100 * part:.0f} %" for part in (what["append"], what["edit"]))

    rows = [["state", "model", *ways]]
    rows += [
        [kind, f"`{name}`", *(cell(found[name].get(way)) for way in ways)]
        for name, kind in KINDS.items()
        if name in found
    ]
    rows.append([f"the least of all {len(found)}", "", *(least(found, way) for way in ways)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def least(found: dict[str, dict[str, dict[str, float]]], way: str) -> str:
    """Of the architectures with which upstream starts in that way, and how many these are."""
    cells = [cells[way] for cells in found.values() if way in cells]
    parts = (f"{100 * min(cell[step] for cell in cells):.0f} %" for step in ("append", "edit"))
    return f"{', '.join(parts)} of {len(cells)}"


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="tools/matrix", description=__doc__)
    parser.parse_args()
    if not FOUND.exists():
        parser.error(f"there is no {FOUND.relative_to(ROOT)}: `make test-archs` writes it")
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
    when = datetime.fromtimestamp(FOUND.stat().st_mtime, UTC).date()
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = [f"`tests/archs/test_matrix.py` in `make test-archs`, {when}, on top of {commit}:", ""]
    made += table(json.loads(FOUND.read_text(encoding="utf-8")))
    PAGE.write_text(before + BEGIN + "\n".join(made) + "\n" + END + after, encoding="utf-8")
    return 0
