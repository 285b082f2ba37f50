"""Resolving the source and staging a patched copy of it, on tiny trees."""

import multiprocessing
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlas_build import stage_cli, staging
from atlas_build.console import REPOSITORY, BuildError
from atlas_build.git import git, git_output
from atlas_build.pin import Pin, read_pin
from atlas_build.source import Source, llama_source
from atlas_build.staging import OWNED, STAMP, stage
from atlas_build.tree import walk_files
from atlas_build.workspace import exclusive_workspace

FILES = {
    "CMakeLists.txt": "project(fake)\n",
    "include/llama.h": "#pragma once\n",
    "tools/server/server.cpp": "".join(f"line {n}\n" for n in range(1, 41)),
    "src/models/a.cpp": "kept: not at the top\n",
    "models/big.gguf": "left out\n",
}
SERVER = "tools/server/server.cpp"
PIN = Pin("thing==1.0", "0" * 64, "a", commit="1" * 40)


def diff_of(path: str, old: int, before: str, after: str) -> str:
    return (
        f"Subject\n\nWhy.\n---\ndiff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
        f"@@ -{old},3 +{old},3 @@\n line {old}\n-{before}\n+{after}\n line {old + 2}\n"
    )


def write_series(patches: Path, **contents: str) -> None:
    patches.mkdir(exist_ok=True)
    names = [f"{name}.patch" for name in contents]
    for name, text in zip(names, contents.values(), strict=True):
        (patches / name).write_text(text)
    (patches / "series").write_text("# order matters\n" + "".join(f"{name}\n" for name in names))


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): ((root / p).read_bytes(), (root / p).stat().st_mtime_ns) for p in walk_files(root)}


def changed(before: dict[str, tuple[bytes, int]], after: dict[str, tuple[bytes, int]]) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    root = tmp_path / "upstream"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        os.utime(root / name, (1e9, 1e9))
    return root


@pytest.fixture
def source(upstream: Path) -> Source:
    return Source(upstream, "fake", ("models",))


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    directory = tmp_path / "patches"
    write_series(
        directory, one=diff_of(SERVER, 1, "line 2", "patched"), two=diff_of(SERVER, 20, "line 21", "too")
    )
    return directory


@pytest.fixture
def dest(tmp_path: Path) -> Iterator[Path]:
    """A directory in a git repository, as build trees are; nothing but it may stay behind."""
    parent = tmp_path / "repository" / "build"
    parent.mkdir(parents=True)
    git_output("init", "--quiet", ".", cwd=parent.parent)
    yield parent / "staged"
    assert {path.name for path in parent.iterdir()} <= {"staged", ".staged.lock"}


def test_stages_and_then_does_nothing(
    source: Source, patches: Path, dest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage(source, dest, patches)
    assert (dest / SERVER).read_text().splitlines()[1] == "patched"
    assert (dest / SERVER).read_text().splitlines()[20] == "too"
    assert set(map(str, walk_files(dest))) == {*FILES, STAMP, OWNED} - {"models/big.gguf"}
    before = snapshot(dest)
    assert not stage(source, dest, patches)
    assert "up to date" in capsys.readouterr().out
    assert snapshot(dest) == before


def test_changed_patch_touches_only_what_it_changes(source: Source, patches: Path, dest: Path) -> None:
    stage(source, dest, patches)
    before = snapshot(dest)
    write_series(patches, one=diff_of(SERVER, 1, "line 2", "anew"))
    assert stage(source, dest, patches)
    assert changed(before, snapshot(dest)) == {SERVER, STAMP}
    assert (dest / SERVER).read_text() == FILES[SERVER].replace("line 2\n", "anew\n", 1)


def test_dropped_patches_restore_upstream(source: Source, patches: Path, dest: Path) -> None:
    new_file = (
        "N\n\nWhy.\n---\ndiff --git a/new/n.h b/new/n.h\nnew file mode 100644\n"
        "--- /dev/null\n+++ b/new/n.h\n@@ -0,0 +1 @@\n+n\n"
    )
    write_series(patches, one=new_file, two=diff_of(SERVER, 1, "line 2", "patched"))
    stage(source, dest, patches)
    assert (dest / "new" / "n.h").read_text() == "n\n"
    stage(source, dest)
    assert (dest / SERVER).read_text() == FILES[SERVER]
    assert not (dest / "new").exists()


def test_file_and_directory_may_swap(source: Source, dest: Path, upstream: Path) -> None:
    (upstream / "swap").write_text("file\n")
    (upstream / "other").mkdir()
    (upstream / "other" / "x").write_text("x\n")
    (upstream / "link").symlink_to("swap")
    stage(source, dest)
    (upstream / "swap").unlink()
    (upstream / "swap").mkdir()
    (upstream / "swap" / "x").write_text("x\n")
    (upstream / "other" / "x").unlink()
    (upstream / "other").rmdir()
    (upstream / "other").write_text("file\n")
    stage(Source(upstream, "next", ("models",)), dest)
    assert (dest / "swap" / "x").read_text() == "x\n"
    assert (dest / "other").read_text() == "file\n"
    assert (dest / "link").readlink() == Path("swap")


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            diff_of(SERVER, 20, "line 99", "x"),
            r"bad\.patch does not apply at tools/server/server\.cpp:20 \(hunk 1 of 1\)",
        ),
        (diff_of("absent.cpp", 1, "a", "b"), r"(?s)bad\.patch does not apply.*absent\.cpp: No such file"),
        ("no diff at all\n", r"(?s)bad\.patch does not apply.*No valid patches"),
        (diff_of(SERVER, 1, "line 2", "x")[:-9], r"(?s)bad\.patch.*corrupt patch at"),
    ],
    ids=["context", "file", "empty", "truncated"],
)
def test_patch_that_does_not_apply(
    source: Source, patches: Path, dest: Path, patch: str, message: str
) -> None:
    stage(source, dest, patches)
    before = snapshot(dest)
    write_series(patches, one=diff_of(SERVER, 1, "line 2", "other"), bad=patch)
    with pytest.raises(BuildError, match=message):
        stage(source, dest, patches)
    assert snapshot(dest) == before


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ("one.patch\none.patch\n", r"series:2: 'one\.patch' is listed twice"),
        ("../one.patch\n", r"series:1: '\.\./one\.patch'"),
        ("three.patch\n", r"series:1: .*three\.patch does not exist"),
        (None, "cannot read .*series"),
    ],
)
def test_malformed_series(
    source: Source, patches: Path, dest: Path, series: str | None, message: str
) -> None:
    (patches / "series").unlink()
    if series is not None:
        (patches / "series").write_text(series)
    with pytest.raises(BuildError, match=message):
        stage(source, dest, patches)


@pytest.mark.parametrize("step", ["apply_patch", "synchronise"])
def test_interruption_leaves_no_stamp_of_the_new_tree(
    source: Source, patches: Path, dest: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(source, dest)
    before = snapshot(dest)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(staging, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            stage(source, dest, patches)
    assert changed(before, snapshot(dest)) == ({STAMP} if step == "synchronise" else set())
    assert (dest / STAMP).exists() == (step == "apply_patch")
    assert stage(source, dest, patches)
    assert (dest / SERVER).read_text().splitlines()[1] == "patched"


def test_what_a_killed_process_left_is_removed(source: Source, dest: Path) -> None:
    half = dest.parent / ".staged.new" / "tree"
    half.mkdir(parents=True)
    (half / "junk").write_text("half")
    stage(source, dest)
    assert not (dest / "junk").exists()


def test_foreign_directories_are_refused(source: Source, dest: Path, upstream: Path) -> None:
    dest.mkdir()
    (dest / "thesis.txt").write_text("mine")
    with pytest.raises(BuildError, match="holds files that staging did not write"):
        stage(source, dest)
    assert [path.name for path in dest.iterdir()] == ["thesis.txt"]
    for nested in (upstream, upstream / "build", upstream.parent):
        with pytest.raises(BuildError, match="lie inside each other"):
            stage(source, nested)


def test_caller_in_a_git_hook_does_not_matter(
    source: Source, patches: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(dest.parent.parent / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", "index")
    stage(source, dest, patches)
    assert (dest / SERVER).read_text().splitlines()[1] == "patched"


def test_processes_exclude_each_other(source: Source, patches: Path, dest: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with exclusive_workspace(dest):
        workers = [spawn.Process(target=stage, args=(source, dest, patches)) for _ in range(3)]
        for worker in workers:
            worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (dest / STAMP).is_file()


@pytest.fixture
def submodule(tmp_path: Path, upstream: Path) -> tuple[Path, Pin]:
    """A populated submodule in a super-repository, and a pin on its commit."""
    path = upstream.rename(tmp_path / "llama.cpp")
    git_output("init", "--quiet", ".", cwd=tmp_path)
    git_output("init", "--quiet", ".", cwd=path)
    git_output("add", ".", cwd=path)
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    git_output(*identity, "commit", "--quiet", "-m", "upstream", cwd=path)
    return path, Pin("thing==1.0", "0" * 64, "a", commit=git_output("rev-parse", "HEAD", cwd=path).strip())


def test_submodule_at_the_pin(submodule: tuple[Path, Pin], tmp_path: Path, dest: Path) -> None:
    path, pin = submodule
    source = llama_source(pin, path, tmp_path / "cache")
    assert source.path == path
    stage(source, dest)
    assert not (dest / ".git").exists()
    assert not (dest / "models").exists()


def test_dirty_submodule(submodule: tuple[Path, Pin], tmp_path: Path) -> None:
    path, pin = submodule
    (path / SERVER).write_text("changed\n")
    (path / "stray.txt").write_text("new\n")
    message = (
        r"(?s)M tools/server/server\.cpp.*\?\? stray\.txt.*checkout HEAD -- \. && git -C llama\.cpp clean"
    )
    with pytest.raises(BuildError, match=message):
        llama_source(pin, path, tmp_path / "cache")


def test_submodule_at_another_commit(submodule: tuple[Path, Pin], tmp_path: Path) -> None:
    path, pin = submodule
    message = (
        rf"at commit {pin.commit}, the pin says 1{{40}}; run: git submodule update --init --force llama\.cpp"
    )
    with pytest.raises(BuildError, match=message):
        llama_source(PIN, path, tmp_path / "cache")


def test_submodule_directory_without_git(tmp_path: Path, upstream: Path) -> None:
    git_output("init", "--quiet", ".", cwd=tmp_path)
    with pytest.raises(BuildError, match=r"git cannot read it as a submodule"):
        llama_source(PIN, upstream, tmp_path / "cache")


def test_empty_submodule_falls_back_to_the_sdist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "llama.cpp").mkdir()
    entry = tmp_path / "cache" / "thing-1.0"
    (entry / "tree").mkdir(parents=True)
    (entry / "verified").write_text(f"{PIN.sha256} {PIN.subdir}\n")
    assert llama_source(PIN, tmp_path / "llama.cpp", tmp_path / "cache").path == entry / "tree"
    assert "not initialised" in capsys.readouterr().out


def test_given_directory_wins_and_is_watched(tmp_path: Path, upstream: Path) -> None:
    def identity() -> str:
        return llama_source(PIN, tmp_path / "absent", tmp_path / "cache", upstream).identity

    first = identity()
    (upstream / "models" / "more").write_text("left out")
    (upstream / "build").mkdir()
    (upstream / "build" / "CMakeCache.txt").write_text("a build tree")
    assert identity() == first
    (upstream / SERVER).write_text(FILES[SERVER])
    assert identity() != first


def test_given_directory_is_no_llama_cpp(tmp_path: Path) -> None:
    with pytest.raises(
        BuildError, match=r"is not a llama\.cpp source tree: CMakeLists\.txt, include/llama\.h"
    ):
        llama_source(PIN, tmp_path, tmp_path / "cache", tmp_path)


def test_command_line(upstream: Path, dest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["llama", "--dest", str(dest), "--cache", str(tmp_path / "cache"), "--source"]
    assert stage_cli.main([*common, str(upstream), "--no-patches"]) == 0
    assert (dest / SERVER).read_text() == FILES[SERVER]
    assert stage_cli.main([*common, str(tmp_path / "absent"), "--no-patches"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit):
        stage_cli.main([*common, ""])
    assert "argument --source: the path is empty" in capsys.readouterr().err


def test_script_runs() -> None:
    done = subprocess.run(
        [REPOSITORY / "tools" / "stage", "--help"], capture_output=True, text=True, check=True
    )
    assert "sdist" in done.stdout


def test_submodule_entry_agrees_with_the_pin() -> None:
    pin = read_pin(stage_cli.LLAMA_PIN)
    url = git_output("config", "--file", ".gitmodules", "submodule.llama.cpp.url", cwd=REPOSITORY)
    assert url.strip() == pin.url
    entry = git("ls-files", "-s", "llama.cpp", cwd=REPOSITORY, user_config=True).output.split()
    assert entry[:2] in ([], ["160000", pin.commit])
