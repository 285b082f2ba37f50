"""The lists of words under words/, one a line."""

from pathlib import Path

_DIRECTORY = Path(__file__).with_name("words")


def words(name: str) -> list[str]:
    """The words of a list, in the order of the file. Raises OSError."""
    return (_DIRECTORY / f"{name}.txt").read_text(encoding="utf-8").splitlines()
