"""Running git so that neither the caller's repository nor the user's configuration changes what it does."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atlas_build.console import BuildError


@dataclass(frozen=True)
class GitResult:
    """Output is decoded with surrogateescape, so that encoding it again gives the same bytes."""

    status: int
    output: str
    errors: str


def git(
    *arguments: str, cwd: Path, user_config: bool = False, environment: Mapping[str, str] | None = None
) -> GitResult:
    """Run `git arguments` in `cwd`, which is the only place where git may find a repository.

    Inside a repository `git apply` silently skips the paths that it does not cover, and a git hook that
    starts a build exports GIT_DIR; neither must reach the source trees handled here. `user_config` keeps
    the user's configuration (safe.directory), which is shut out otherwise; `environment` adds variables.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or (user_config and name.startswith("GIT_CONFIG"))
    }
    if not user_config:
        kept |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    kept |= {"LC_ALL": "C", "GIT_CEILING_DIRECTORIES": str(cwd.resolve().parent), **(environment or {})}
    try:
        done = subprocess.run(["git", *arguments], cwd=cwd, env=kept, capture_output=True, check=False)
    except FileNotFoundError as failure:
        if failure.filename != "git":
            raise
        raise BuildError("git is not installed; run: apt-get install git") from failure
    output, errors = (stream.decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr))
    return GitResult(done.returncode, output, errors)


def git_output(
    *arguments: str, cwd: Path, user_config: bool = False, environment: Mapping[str, str] | None = None
) -> str:
    """Like `git`, but return the output alone and raise BuildError with git's words when it fails."""
    result = git(*arguments, cwd=cwd, user_config=user_config, environment=environment)
    if result.status:
        raise BuildError(f"`git {' '.join(arguments)}` failed in {cwd}:\n{result.errors.strip()}")
    return result.output
