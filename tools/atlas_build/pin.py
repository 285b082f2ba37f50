"""Pin files: which source is used, and the checksum that proves it."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from atlas_build.console import BuildError

_FORMS = {
    "sdist": r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!]*",
    "sha256": r"[0-9a-f]{64}",
    "subdir": r"[^/\\]+(/[^/\\]+)*",
    "commit": r"[0-9a-f]{40}",
    "build": r"[1-9][0-9]*",
    "url": r"https://\S+",
}
_REQUIRED = ("sdist", "sha256", "subdir")


@dataclass(frozen=True)
class Pin:
    """One pinned source; `commit`, `build` and `url` are empty where git is not a way to get it."""

    sdist: str
    sha256: str
    subdir: str
    commit: str = ""
    build: str = ""
    url: str = ""

    @property
    def name(self) -> str:
        return self.sdist.partition("==")[0]

    @property
    def version(self) -> str:
        return self.sdist.partition("==")[2]

    @property
    def archive(self) -> str:
        """File name of the source distribution, as PEP 625 spells it."""
        return f"{re.sub(r'[-_.]+', '_', self.name).lower()}-{self.version}.tar.gz"


def read_pin(path: Path) -> Pin:
    """Read `key = value` lines (`#` starts a comment line).

    Raises BuildError for an unreadable file and for a key that is unknown, repeated, missing or malformed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as failure:
        raise BuildError(f"cannot read the pin file {path}: {failure}") from failure
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        where = f"{path}:{number}"
        if not equals or key not in _FORMS:
            raise BuildError(f"{where}: expected `key = value` with one of {', '.join(_FORMS)}, got {line!r}")
        if key in values:
            raise BuildError(f"{where}: {key} is given twice; keep one")
        if not re.fullmatch(_FORMS[key], value) or ".." in PurePosixPath(value).parts:
            raise BuildError(f"{where}: {key} = {value!r} does not have the form {_FORMS[key]}")
        values[key] = value
    if missing := [key for key in _REQUIRED if key not in values]:
        raise BuildError(f"{path}: {', '.join(missing)} missing; add a `key = value` line for each")
    return Pin(**values)
