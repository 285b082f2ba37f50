"""Patch files: a header that explains, a `---` line, and a diff as git writes it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from atlas_build.console import BuildError

SERIES = "series"
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_TRAILER = re.compile(r"([A-Z][A-Za-z-]*): (.*)")


@dataclass(frozen=True)
class FileChange:
    """What a patch does to one file. `hunks` are the line numbers, in the old file, at which hunks start."""

    path: str
    hunks: tuple[int, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class Patch:
    """One patch. Text is decoded with surrogateescape; rendering and encoding it gives the same bytes."""

    name: str
    header: str
    diff: str
    changes: tuple[FileChange, ...]

    @property
    def subject(self) -> str:
        return self.header.partition("\n")[0]

    @property
    def trailers(self) -> dict[str, str]:
        """`Key: value` lines of the header's last paragraph; indented lines continue a value."""
        trailers: dict[str, str] = {}
        key = ""
        for line in "".join(self._paragraphs[1:][-1:]).splitlines():
            if match := _TRAILER.fullmatch(line):
                key = match[1]
                trailers[key] = match[2].strip()
            elif key and line[:1].isspace():
                trailers[key] += f" {line.strip()}"
            else:
                return {}
        return trailers

    @property
    def why(self) -> str:
        """The header's text between the subject and the trailers."""
        paragraphs = self._paragraphs[1:-1] if self.trailers else self._paragraphs[1:]
        return "\n\n".join(paragraphs)

    @property
    def guarded(self) -> bool:
        return self.trailers.get("Guarded") == "yes"

    @property
    def kind(self) -> str:
        """`seam`: calls ATLAS; `mend`: repairs a fault of upstream's, which leaves when upstream has it."""
        return self.trailers.get("Kind", "")

    @property
    def _paragraphs(self) -> list[str]:
        return self.header.split("\n\n")

    def render(self) -> str:
        return f"{self.header}\n---\n{self.diff}"

    def file_name(self, number: int) -> str:
        """The name the patch has at place `number` (from 1) of the series."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.subject.lower()).strip("-")
        return f"{number:04}-{slug}.patch"


def parse_patch(name: str, text: str) -> Patch:
    """Split a patch file. Raises BuildError when a part is missing, malformed, binary or a rename."""
    header, rule, diff = text.partition("\n---\n")
    if not rule or not header.strip() or not diff.startswith("diff --git "):
        raise BuildError(f"{name}: expected a header, a line `---`, and a diff that starts with `diff --git`")
    if re.search(r"^(diff --git |--- )", header, re.MULTILINE):
        raise BuildError(f"{name}: a header line starts like a diff, which git would take it for; reword it")
    return Patch(name, header, diff, tuple(_parse_diff(name, diff)))


def read_series(patches: Path) -> list[str]:
    """The names in `series`, in order. Raises BuildError for a missing file, a bad and a repeated name."""
    series = patches / SERIES
    try:
        lines = series.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as failure:
        raise BuildError(f"cannot read {series}, which lists the patches in order: {failure}") from failure
    names: list[str] = []
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if not re.fullmatch(r"[\w.+-]+\.patch", name) or name in names:
            raise BuildError(f"{series}:{number}: {name!r} is listed twice or does not name a .patch file")
        if not (patches / name).is_file():
            raise BuildError(
                f"{series}:{number}: {patches / name} does not exist; restore it or drop the line"
            )
        names.append(name)
    return names


def read_patches(patches: Path) -> list[Patch]:
    """The patches of the series, in order. Raises BuildError."""
    return [parse_patch(name, decode((patches / name).read_bytes())) for name in read_series(patches)]


def decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _parse_diff(name: str, diff: str) -> Iterator[FileChange]:
    lines = diff.split("\n")[:-1]
    starts = [number for number, line in enumerate(lines) if line.startswith("diff --git ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        section = lines[start:end]
        names = section[0].removeprefix("diff --git a/")
        path = names[: (len(names) - len(" b/")) // 2]
        if names != f"{path} b/{path}":
            raise BuildError(f"{name}: renames and unusual file names are not supported: {section[0]!r}")
        if any(line.startswith(("Binary files ", "GIT binary patch")) for line in section):
            raise BuildError(f"{name}: {path} is binary; patches change text only")
        yield _parse_hunks(name, path, section)


def _parse_hunks(name: str, path: str, section: Sequence[str]) -> FileChange:
    hunks: list[int] = []
    added: list[str] = []
    removed: list[str] = []
    old = new = 0
    for line in section:
        if old > 0 or new > 0:
            kind = line[:1]
            if kind not in {" ", "+", "-", "\\", ""}:
                raise BuildError(f"{name}: the hunk of {path} at line {hunks[-1]} is shorter than it says")
            old -= kind in {" ", "-", ""}
            new -= kind in {" ", "+", ""}
            if kind == "+":
                added.append(line[1:])
            elif kind == "-":
                removed.append(line[1:])
        elif match := _HUNK.match(line):
            hunks.append(int(match[1]))
            old, new = int(match[2] or 1), int(match[3] or 1)
    if old or new:
        raise BuildError(f"{name}: the last hunk of {path} does not have the length it says")
    return FileChange(path, tuple(hunks), tuple(added), tuple(removed))
