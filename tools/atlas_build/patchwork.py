"""The scratch repository in which patches are edited: one commit for upstream, one for each patch."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from atlas_build.console import BuildError
from atlas_build.git import git, git_output
from atlas_build.patchfile import SERIES, Patch, encode, parse_patch
from atlas_build.source import Source
from atlas_build.staging import describe_refusal
from atlas_build.tree import copy_tree
from atlas_build.workspace import exclusive_workspace

_BASE = "refs/atlas/base"
_SAVED = "refs/atlas/saved"
_IDENTITY = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", "ATLAS"), ("EMAIL", "patches@atlas.invalid"), ("DATE", "946684800 +0000"))
}
_SETTINGS = {
    "core.autocrlf": "false",
    "core.quotePath": "true",
    "core.attributesFile": "/dev/null",
    "core.hooksPath": "/dev/null",
    "commit.gpgSign": "false",
    "gc.auto": "0",
}
# Every option that git's configuration could set otherwise, so that equal trees give equal bytes.
_DIFF = (
    *("diff-tree", "-p", "-r", "--no-commit-id", "--no-color", "--no-renames", "--no-ext-diff"),
    *("--no-textconv", "--no-relative", "--abbrev=10", "--unified=3", "--inter-hunk-context=0"),
    *("--diff-algorithm=myers", "--indent-heuristic", "--src-prefix=a/", "--dst-prefix=b/"),
)
_AM = (
    *("am", "--quiet", "--keep", "--keep-cr", "--no-scissors", "--whitespace=nowarn"),
    "--committer-date-is-author-date",
)


class PatchRepository:
    """A git repository made by `create`; used by one thread and one process at a time."""

    def __init__(self, path: Path) -> None:
        """Open the repository at `path`. Raises BuildError when there is none."""
        self.path = path
        if not (path / ".git").exists() or git("rev-parse", "--verify", _BASE, cwd=path).status:
            raise BuildError(f"{path} is not a patch work repository; make one with: tools/patches apply")

    @classmethod
    def create(cls, path: Path, source: Source, title: str, discard: bool = False) -> "PatchRepository":
        """Commit the pristine `source` as "upstream `title`" in a new repository at `path`.

        A repository that is there is replaced if no work in it would be lost, or with `discard`; any other
        directory is refused. Raises BuildError.
        """
        path = path.absolute()
        if path.exists() and any(path.iterdir()) and (lost := cls(path).unsaved()) and not discard:
            raise BuildError(f"{path} has {lost}; commit and run tools/patches export, or apply --discard")
        with exclusive_workspace(path) as workspace:
            fresh = workspace / "repository"
            copy_tree(source.path, fresh, source.left_out)
            git_output("init", "--quiet", "--template=", "--initial-branch=patches", cwd=fresh)
            for key, value in _SETTINGS.items():
                git_output("config", key, value, cwd=fresh)
            attributes = fresh / ".git" / "info" / "attributes"
            attributes.parent.mkdir()
            attributes.write_text("* -text -ident -filter !diff !eol !working-tree-encoding\n")
            git_output("add", "--all", "--force", ".", cwd=fresh)
            git_output("commit", "--quiet", "-m", f"upstream {title}", cwd=fresh, environment=_IDENTITY)
            git_output("update-ref", _BASE, "HEAD", cwd=fresh)
            git_output("update-ref", _SAVED, "HEAD", cwd=fresh)
            if path.exists():
                shutil.rmtree(path)
            fresh.rename(path)
        return cls(path)

    def apply(self, patches: Sequence[Patch]) -> None:
        """Commit each patch. When one does not apply, `git am` stays stopped there; BuildError says where."""
        messages = self.path / ".git" / "atlas-messages"
        messages.mkdir()
        files = [messages / patch.name for patch in patches]
        for file, patch in zip(files, patches, strict=True):
            file.write_bytes(encode(_mail(patch)))
        done = git(*_AM, *map(str, files), cwd=self.path, environment=_IDENTITY) if files else None
        shutil.rmtree(messages)
        self._mark_saved()
        if done and done.status:
            state = self.path / ".git" / "rebase-apply" / "next"
            failed = patches[int(state.read_text()) - 1] if state.is_file() else patches[0]
            raise BuildError(
                f"{describe_refusal(failed.name, failed.render(), done.errors)}\n"
                f"{self.path} holds the patches before it: change the files there, `git add` them, run "
                "`git am --continue`, then tools/patches export"
            )

    def export(self) -> list[Patch]:
        """The commits after upstream's as patches, in order. Raises BuildError when work is uncommitted."""
        if unfinished := self._unfinished():
            raise BuildError(f"{self.path} has {unfinished}; commit or finish it, then export")
        commits = git_output("rev-list", "--reverse", "--parents", f"{_BASE}..HEAD", cwd=self.path)
        return [self._patch(number, line.split()) for number, line in enumerate(commits.splitlines(), 1)]

    def save(self, patches: Path) -> list[Path]:
        """Export to the directory `patches` and return the files changed there. Raises BuildError."""
        changed = write_patches(self.export(), patches)
        self._mark_saved()
        return changed

    def unsaved(self) -> str:
        """What would be lost with the repository, in words; empty if nothing."""
        head, saved = git_output("rev-parse", "HEAD", _SAVED, cwd=self.path).splitlines()
        return self._uncommitted() or ("" if head == saved else "commits that are not exported")

    def file(self, path: str, pristine: bool = False) -> str:
        """Content of a file with all patches applied, or upstream's; empty if it does not exist there."""
        result = git("cat-file", "blob", f"{_BASE if pristine else 'HEAD'}:{path}", cwd=self.path)
        return "" if result.status else result.output

    def _patch(self, number: int, commit: Sequence[str]) -> Patch:
        if len(commit) != 2:
            raise BuildError(f"{self.path}: commit {commit[0]} is a merge; rebase to remove it")
        header = git_output("log", "-1", "--format=%B", commit[0], cwd=self.path).rstrip("\n")
        diff = git_output(*_DIFF, commit[0], cwd=self.path)
        patch = parse_patch(f"{self.path}: commit {commit[0][:10]}", f"{header}\n---\n{diff}")
        return replace(patch, name=patch.file_name(number))

    def _mark_saved(self) -> None:
        git_output("update-ref", _SAVED, "HEAD", cwd=self.path)

    def _uncommitted(self) -> str:
        return "uncommitted changes" if git_output("status", "--porcelain", cwd=self.path) else ""

    def _unfinished(self) -> str:
        for state in ("rebase-apply", "rebase-merge"):
            if (self.path / ".git" / state).exists():
                return "a `git am` or `git rebase` in progress"
        return self._uncommitted()


def write_patches(patches: Sequence[Patch], directory: Path) -> list[Path]:
    """Make `directory` hold exactly `patches` and their series; return what was written or deleted.

    The comment that the series starts with is kept, as are files that are not named *.patch.
    """
    directory.mkdir(parents=True, exist_ok=True)
    contents = {directory / patch.name: encode(patch.render()) for patch in patches}
    contents[directory / SERIES] = render_series(patches, directory)
    changed = [file for file, data in contents.items() if not file.is_file() or file.read_bytes() != data]
    for file in changed:
        file.write_bytes(contents[file])
    stale = sorted(set(directory.glob("*.patch")) - set(contents))
    for file in stale:
        file.unlink()
    return changed + stale


def render_series(patches: Sequence[Patch], directory: Path) -> bytes:
    """The canonical series: the comment that the one in `directory` starts with, then the names."""
    series = directory / SERIES
    lines = series.read_text(encoding="utf-8").splitlines() if series.is_file() else []
    comment = lines[: next((at for at, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    return "".join(f"{line}\n" for line in [*comment, *(patch.name for patch in patches)]).encode()


def _mail(patch: Patch) -> str:
    body = patch.header.partition("\n")[2].lstrip("\n")
    return (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\n"
        f"From: {_IDENTITY['GIT_AUTHOR_NAME']} <{_IDENTITY['GIT_AUTHOR_EMAIL']}>\n"
        "Date: Sat, 1 Jan 2000 00:00:00 +0000\n"
        f"Subject: {patch.subject}\n"
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\n"
        f"{body}\n---\n{patch.diff}"
    )
