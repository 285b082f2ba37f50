"""Where the llama.cpp source comes from: a given directory, the submodule, or a source distribution."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from atlas_build.console import BuildError
from atlas_build.git import git, git_output
from atlas_build.pin import Pin
from atlas_build.sdist import fetch_sdist
from atlas_build.tree import tree_digest

LEFT_OUT = ("docs", "media", "models")
_EXPECTED_FILES = ("CMakeLists.txt", "include/llama.h", "tools/server/server.cpp")


@dataclass(frozen=True)
class Source:
    """A pristine tree. Equal identities mean equal content; `left_out` names what is not copied."""

    path: Path
    identity: str
    left_out: tuple[str, ...] = ()


def sdist_source(pin: Pin, cache: Path, left_out: Collection[str] = (), otherwise: str = "") -> Source:
    """The pinned source distribution, fetched when the cache does not hold it. Raises BuildError."""
    tree = fetch_sdist(pin, cache, otherwise)
    return Source(tree, f"sdist {pin.sha256} {pin.subdir}", tuple(left_out))


def llama_source(pin: Pin, submodule: Path, cache: Path, given: Path | None = None) -> Source:
    """Resolve the llama.cpp source.

    `given` wins and is trusted; else a populated `submodule`, which must be clean and at the pinned commit;
    else the source distribution. Raises BuildError that names what differs and the command that repairs it.
    """
    if given is not None:
        if missing := [name for name in _EXPECTED_FILES if not (given / name).is_file()]:
            raise BuildError(f"{given} is not a llama.cpp source tree: {', '.join(missing)} missing")
        path = given.resolve()
        return Source(path, f"directory {path} {tree_digest(path, LEFT_OUT)}", LEFT_OUT)
    if (submodule / "CMakeLists.txt").is_file():
        _check_submodule(submodule, pin.commit)
        return Source(submodule.resolve(), f"commit {pin.commit}", LEFT_OUT)
    print(f"the submodule {submodule.name} is not initialised: using {pin.sdist}", flush=True)
    return sdist_source(
        pin, cache, LEFT_OUT, ", or give a llama.cpp checkout with -DLLAMA_CPP_DIR=… (--source …)"
    )


def _check_submodule(submodule: Path, commit: str) -> None:
    update = f"git submodule update --init --force {submodule.name}"
    head = git("rev-parse", "HEAD", cwd=submodule, user_config=True)
    if head.status:
        raise BuildError(
            f"{submodule} holds files, but git cannot read it as a submodule ({head.errors.strip()}); "
            f"move it away and run: {update}"
        )
    if head.output.strip() != commit:
        raise BuildError(
            f"{submodule} is at commit {head.output.strip()}, the pin says {commit}; run: {update}"
        )
    changes = git_output("status", "--porcelain", "--untracked-files=normal", cwd=submodule, user_config=True)
    if changes:
        shown = changes.splitlines()
        more = f"\n  and {len(shown) - 10} more" if len(shown) > 10 else ""
        restore = f"git -C {submodule.name} checkout HEAD -- . && git -C {submodule.name} clean -fd"
        raise BuildError(
            f"{submodule} has local changes, but upstream's source is changed through patches/ only:\n"
            + "\n".join(f"  {line}" for line in shown[:10])
            + f"{more}\nkeep them with tools/patches, or discard them with: {restore}"
        )
