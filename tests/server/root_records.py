"""What a memory's directory says of its roots, read and changed."""

from pathlib import Path


def records(directory: Path) -> dict[str, dict[str, str]]:
    """What is said of each root, of each kind the last."""
    return {
        file.name: dict(line.split(" ", 1) for line in file.read_text(encoding="utf-8").splitlines() if line)
        for file in (directory / "memory" / "roots").iterdir()
    }


def rename(record: Path, kind: str, old: str, new: str) -> None:
    """Have the record say something else."""
    text = record.read_text(encoding="utf-8")
    assert f"\n{kind} " in text
    lines = [line.replace(old, new) if line.startswith(f"{kind} ") else line for line in text.splitlines()]
    record.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_state_anothers(directory: Path) -> None:
    """As if a build of another name had computed all that is stored."""
    for record in (directory / "memory" / "roots").iterdir():
        rename(record, "environment", "build=", "build=b1-")
