"""What a memory's directory says of its roots, read and changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

from gguf import GGUFReader

from tests.server.harness import MODEL


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


def nearly_the_same(path: Path) -> Path:
    """The demo model, with keys of its first layer that are longer by a twentieth."""
    shutil.copy(MODEL, path)
    reader = GGUFReader(path, "r+")
    keys = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_k.weight")
    keys.data[:] = keys.data * 1.05
    reader.data.flush()
    return path


def leave_wrong_state(directory: Path, serve: Callable[[Path], str]) -> str:
    """As if a build that computes otherwise had stored what the demo model said: a similar model said it.

    `serve` has a server of a model, with its memory in `directory`, say something, and returns the root.
    The root of that state is returned.
    """
    memory, identities = directory / "memory", []
    for model in (MODEL, nearly_the_same(directory / "model.gguf")):
        root = serve(model)
        identities.append(records(directory)[root]["identity"])
        if model == MODEL:
            shutil.rmtree(memory / "blocks")
            (memory / "roots" / root).unlink()
    rename(memory / "roots" / root, "identity", *reversed(identities))
    make_state_anothers(directory)
    return root
