"""Commits of a work repository of tools/patches, for its tests."""

from atlas_build.git import git_output
from atlas_build.patchwork import PatchRepository

TRAILERS = "Forwarded: no, ours\nDrop-When: upstream has it,\n  in some form\nGuarded: yes\nKind: seam"
IDENTITY = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def message(subject: str, trailers: str = TRAILERS) -> str:
    return f"{subject}\n\nFrom the start: a reason, in ünïcode,\nof two lines.\n\n{trailers}\n"


def commit(repository: PatchRepository, text: str, **files: str) -> None:
    for name, content in files.items():
        path = repository.path / name.replace("__", "/").replace("_cpp", ".cpp")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    git_output("add", "--all", ".", cwd=repository.path)
    git_output("commit", "--quiet", "-m", text, cwd=repository.path, environment=IDENTITY)
