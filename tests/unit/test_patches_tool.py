"""tools/patches: the work repository, lint, verify and stats, on a tiny upstream; lint on the real series."""

import subprocess
from pathlib import Path

import pytest

from atlas_build import patches_cli
from atlas_build.console import REPOSITORY, BuildError
from atlas_build.git import git_output
from atlas_build.patchcheck import BUDGETS, BUSY_FILE, MOST_HUNKS, counted_lines, lint, stats, verify
from atlas_build.patchfile import parse_patch, read_patches
from atlas_build.patchwork import PatchRepository, write_patches
from atlas_build.source import Source
from atlas_build.stage_cli import PATCHES
from tests.unit.patch_repositories import IDENTITY, TRAILERS, commit, message

GUARDED = "#ifdef LLAMA_ATLAS\nint atlas;\n#endif\n"


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    root = tmp_path / "upstream"
    root.mkdir()
    (root / ".gitignore").write_text("*.log\n")
    (root / ".gitattributes").write_text("*.cpp text eol=lf diff=cpp\n")
    (root / "ignored.log").write_text("tracked all the same\n")
    (root / "a.cpp").write_text("int one;\n#if X\nint two;\n#endif\n")
    (root / "crlf.cpp").write_bytes(b"int one;\r\nint \xfftwo;\r\n")
    return root


@pytest.fixture
def source(upstream: Path) -> Source:
    return Source(upstream, "fake")


@pytest.fixture
def repository(source: Source, tmp_path: Path) -> PatchRepository:
    """A work repository inside another repository, with two patches committed."""
    git_output("init", "--quiet", ".", cwd=tmp_path)
    made = PatchRepository.create(tmp_path / "build" / "work", source, "fake")
    commit(made, message("Declare ATLAS: first"), a_cpp="int one;\n#if X\n" + GUARDED + "int two;\n#endif\n")
    commit(made, message("Add a file"), new__file_cpp=GUARDED)
    return made


@pytest.fixture
def patches(repository: PatchRepository, tmp_path: Path) -> Path:
    directory = tmp_path / "patches"
    repository.save(directory)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def edit(patches: Path, number: int, old: str, new: str) -> None:
    path = next(patches.glob(f"{number:04}-*"))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_export(patches: Path) -> None:
    assert (patches / "series").read_text() == "0001-declare-atlas-first.patch\n0002-add-a-file.patch\n"
    text = (patches / "0001-declare-atlas-first.patch").read_text()
    assert text.startswith(message("Declare ATLAS: first") + "---\ndiff --git a/a.cpp b/a.cpp\nindex ")
    first, second = read_patches(patches)
    assert first.guarded
    assert first.trailers["Drop-When"] == "upstream has it, in some form"
    assert first.why == "From the start: a reason, in ünïcode,\nof two lines."
    assert [change.path for change in second.changes] == ["new/file.cpp"]


def test_apply_then_export_is_byte_identical(
    patches: Path, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[core]\nautocrlf = true\nabbrev = 40\n[diff]\nnoprefix = true\ncontext = 9\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    (patches / "series").write_text("# order matters\n" + (patches / "series").read_text())
    before = contents(patches)
    work = PatchRepository.create(tmp_path / "again", source, "fake")
    work.apply(read_patches(patches))
    assert git_output("ls-files", cwd=work.path).split() == [
        *(".gitattributes", ".gitignore", "a.cpp", "crlf.cpp", "ignored.log", "new/file.cpp"),
    ]
    assert work.save(patches) == []
    assert contents(patches) == before


def test_bytes_survive(repository: PatchRepository, source: Source, patches: Path, tmp_path: Path) -> None:
    file = repository.path / "crlf.cpp"
    file.write_bytes(file.read_bytes() + b"int \xfethree;\r\n")
    commit(repository, message("Keep line ends", TRAILERS.replace("yes", "no")))
    repository.save(patches)
    assert b"+int \xfethree;\r\n" in (patches / "0003-keep-line-ends.patch").read_bytes()
    verify(patches, source)


def test_export_deletes_what_is_gone_and_renumbers(repository: PatchRepository, patches: Path) -> None:
    git_output("rebase", "--quiet", "--onto", "HEAD~2", "HEAD~1", cwd=repository.path, environment=IDENTITY)
    (patches / "README.md").write_text("kept")
    changed = {path.name for path in repository.save(patches)}
    assert changed == {
        "0001-add-a-file.patch",
        "0001-declare-atlas-first.patch",
        "0002-add-a-file.patch",
        "series",
    }
    assert set(contents(patches)) == {"0001-add-a-file.patch", "series", "README.md"}


def test_patch_that_does_not_apply_can_be_finished_with_git_am(
    patches: Path, source: Source, tmp_path: Path
) -> None:
    (source.path / "a.cpp").write_text("int one;\n#if Y\nint two;\n#endif\n")
    work = PatchRepository.create(tmp_path / "again", source, "fake")
    with pytest.raises(
        BuildError, match=r"0001-declare-atlas-first\.patch does not apply at a\.cpp:1 \(hunk 1 of 1\)"
    ):
        work.apply(read_patches(patches))
    with pytest.raises(BuildError, match="`git am` or `git rebase` in progress"):
        work.export()
    (work.path / "a.cpp").write_text("int one;\n#if Y\n" + GUARDED + "int two;\n#endif\n")
    git_output("add", "a.cpp", cwd=work.path)
    git_output("am", "--continue", cwd=work.path, environment=IDENTITY)
    work.save(patches)
    assert list(contents(patches)) and verify(patches, source) == []


def test_unsaved_work_is_not_replaced(repository: PatchRepository, source: Source, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="commits that are not exported"):
        PatchRepository.create(repository.path, source, "fake")
    repository.save(tmp_path / "patches")
    (repository.path / "a.cpp").write_text("edited\n")
    for action in (lambda: PatchRepository.create(repository.path, source, "fake"), repository.export):
        with pytest.raises(BuildError, match="uncommitted changes"):
            action()
    assert PatchRepository.create(repository.path, source, "fake", discard=True).export() == []


def test_foreign_directory_is_refused(source: Source, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(BuildError, match="is not a patch work repository"):
        PatchRepository.create(tmp_path / "mine", source, "fake", discard=True)
    assert (tmp_path / "mine" / "file").read_text() == "mine"


def test_commits_that_make_no_patch(repository: PatchRepository) -> None:
    def refused(match: str) -> None:
        with pytest.raises(BuildError, match=match):
            repository.export()
        git_output("reset", "--quiet", "--hard", "HEAD~1", cwd=repository.path)

    git_output("commit", "--allow-empty", "-m", "Nothing", cwd=repository.path, environment=IDENTITY)
    refused("expected a header, a line `---`, and a diff")
    commit(repository, "Rule\n\n---\n\nmore", a_cpp="x\n")
    refused("expected a header, a line `---`, and a diff")
    commit(repository, "Diff\n\ndiff --git is a command", a_cpp="x\n")
    refused("starts like a diff")
    commit(repository, "Binary", a_cpp="\0\n")
    refused("a.cpp is binary")
    git_output("checkout", "--quiet", "-b", "side", "HEAD~1", cwd=repository.path)
    commit(repository, "Side", side_cpp="x\n")
    git_output("merge", "--no-ff", "-m", "Merge", "patches", cwd=repository.path, environment=IDENTITY)
    refused("is a merge")


def test_lint_accepts_a_good_series(patches: Path) -> None:
    (patches / "README.md").write_text("allowed")
    assert lint(patches) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("Add a file", "A" * 73, "0002-add-a-file.patch: subject has 73 characters, at most 72 are allowed"),
        (
            "Add a file",
            "Other",
            "0002-add-a-file.patch: its place and subject ask for the name 0002-other.patch",
        ),
        (
            "From the start: a reason, in ünïcode,\nof two lines.\n\n",
            "",
            "0002-add-a-file.patch: no paragraph that says why",
        ),
        ("Forwarded: no, ours\n", "", "0002-add-a-file.patch: no `Forwarded:` trailer"),
        (
            "Drop-When: upstream has it,\n  in some form\n",
            "",
            "0002-add-a-file.patch: no `Drop-When:` trailer",
        ),
        ("Guarded: yes", "Guarded:", "0002-add-a-file.patch: no `Guarded:` trailer"),
        ("Guarded: yes", "Guarded: maybe", "0002-add-a-file.patch: `Guarded: maybe` is neither yes nor no"),
        ("Kind: seam\n", "", "0002-add-a-file.patch: no `Kind:` trailer"),
        ("Kind: seam", "Kind: patch", "0002-add-a-file.patch: `Kind: patch` is neither seam nor mend"),
        (
            "+int atlas;",
            "+int atlas; ",
            "0002-add-a-file.patch: new/file.cpp: added line ends with white space: 'int",
        ),
        (
            "+int atlas;",
            "+\tint atlas;",
            "0002-add-a-file.patch: new/file.cpp: added line has a tab: '\\tint",
        ),
        (
            "+int atlas;",
            "int atlas;",
            "0002-add-a-file.patch: the hunk of new/file.cpp at line 0 is shorter than it says",
        ),
        (
            "+1,3",
            "+1,4",
            "0002-add-a-file.patch: the last hunk of new/file.cpp does not have the length it says",
        ),
        ("b/new/file.cpp", "b/old/file.cpp", "0002-add-a-file.patch: renames and unusual file names"),
        ("\n---\n", "\n", "0002-add-a-file.patch: expected a header, a line `---`"),
    ],
)
def test_lint_names_the_problem(patches: Path, old: str, new: str, problem: str) -> None:
    edit(patches, 2, old, new)
    assert any(found.startswith(problem) for found in lint(patches)), lint(patches)


def test_lint_of_the_directory(patches: Path) -> None:
    (patches / "stray.patch").write_text("x")
    path = patches / "0002-add-a-file.patch"
    path.write_text(path.read_text().rstrip("\n"))
    assert lint(patches) == [
        "stray.patch: not listed in series; add it there or delete it",
        "0002-add-a-file.patch: does not end with a newline",
        "0002-add-a-file.patch: the last hunk of new/file.cpp does not have the length it says",
    ]


@pytest.mark.parametrize(("kind", "of_others"), [("seam", 2), ("mend", 0)])
def test_lint_of_the_budgets(repository: PatchRepository, patches: Path, kind: str, of_others: int) -> None:
    allowed = BUDGETS[kind] - of_others
    trailers = TRAILERS.replace("seam", kind)
    uncounted = "\n#include <x>\n  # define y\n" * 100
    commit(repository, message("All that is allowed", trailers), big_cpp=uncounted + "int x;\n" * allowed)
    repository.save(patches)
    assert lint(patches) == []
    commit(repository, message("One more", trailers), more_cpp="// why\n")
    repository.save(patches)
    assert lint(patches) == [
        f"{kind}s change {BUDGETS[kind] + 1} lines, their budget is {BUDGETS[kind]}: move code into native/"
    ]


def test_lint_of_the_hunks(repository: PatchRepository, patches: Path) -> None:
    busy = BUSY_FILE.replace("/", "__")

    def text(**words: str) -> str:
        return "".join(f"int x{n}{words.get(f'x{n}', '')};\n" + "\n" * 9 for n in range(MOST_HUNKS))

    commit(repository, message("Make the file"), **{busy: text()})
    changed = {f"x{n}": "y" for n in range(MOST_HUNKS - 1)}
    commit(repository, message("Use the other hunks"), **{busy: text(**changed)})
    repository.save(patches)
    assert lint(patches) == []
    commit(repository, message("Change one once more"), **{busy: text(**changed | {"x0": "z"})})
    repository.save(patches)
    assert lint(patches) == [f"{MOST_HUNKS + 1} hunks in {BUSY_FILE}, at most {MOST_HUNKS} are allowed"]


def test_counted_lines() -> None:
    def counted(path: str, *lines: str) -> int:
        diff = f"diff --git a/{path} b/{path}\n@@ -1,0 +1,{len(lines)} @@\n" + "".join(
            f"+{line}\n" for line in lines
        )
        return counted_lines(parse_patch("p", f"S\n\nWhy.\n---\n{diff}"))

    assert counted("a.cpp", "#ifdef X", "  #  else", "", "  ", "// why", "}") == 2
    assert counted("CMakeLists.txt", "# why", "", "endif()") == 2
    removed = "diff --git a/a.h b/a.h\n@@ -1,3 +0,0 @@\n-#if X\n-\n-int x;\n"
    assert counted_lines(parse_patch("p", f"S\n\nWhy.\n---\n{removed}")) == 1


def test_verify_accepts_guarded_files(patches: Path, source: Source) -> None:
    assert verify(patches, source) == []


def test_verify_finds_unguarded_lines(repository: PatchRepository, patches: Path, source: Source) -> None:
    commit(
        repository,
        message("Break"),
        a_cpp="int one;\n#if X\n" + GUARDED + "\nint two;\n#endif\n",
        CMake="x\n",
    )
    repository.save(patches)
    with pytest.raises(BuildError, match=r"upstream's line: a\.cpp:3; put every"):
        verify(patches, source)
    edit(patches, 3, "Guarded: yes", "Guarded: no")
    assert verify(patches, source) == ["a.cpp: guards not checked, an unguarded patch changes it too"]
    edit(patches, 1, "Guarded: yes", "Guarded: no")
    edit(patches, 3, "Guarded: no", "Guarded: yes")
    assert [note.partition(":")[0] for note in verify(patches, source)] == ["CMake", "a.cpp"]


def test_verify_refuses_what_export_would_change(patches: Path, source: Source) -> None:
    edit(patches, 1, "index ", "index 0")
    with pytest.raises(
        BuildError, match=r"not as tools/patches export writes it: 0001-declare-atlas-first\.patch;"
    ):
        verify(patches, source)


def test_stats(patches: Path) -> None:
    rows = [line.split() for line in stats(patches).splitlines()]
    assert rows[1:4] == [
        ["0001-declare-atlas-first.patch", "seam", "1", "3", "0", "1", "1"],
        ["0002-add-a-file.patch", "seam", "1", "3", "0", "1", "1"],
        ["total", "2", "6", "0", "2", "2"],
    ]
    assert stats(patches).splitlines()[4:] == [
        f"2 of {BUDGETS['seam']} counted lines used by seams",
        f"0 of {BUDGETS['mend']} counted lines used by mends",
        f"0 of {MOST_HUNKS} hunks used in {BUSY_FILE}",
    ]


def test_hunks_and_removed_lines_that_look_like_headers() -> None:
    diff = "diff --git a/q.sql b/q.sql\n@@ -3,2 +3 @@\n--- a comment\n a\n@@ -9 +8 @@\n-b\n+c\n"
    (change,) = parse_patch("p", f"S\n\nWhy.\n---\n{diff}").changes
    assert (change.hunks, change.added, change.removed) == ((3, 9), ("c",), ("-- a comment", "b"))


def test_command_line(
    patches: Path,
    upstream: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patches_cli, "_source", lambda _: Source(upstream, "fake"))
    directory, work = ["--patches", str(patches)], ["--work", str(tmp_path / "work")]
    assert patches_cli.main(["export", *work]) == 1
    assert "make one with: tools/patches apply" in capsys.readouterr().err
    for arguments in (["apply", *work, *directory], ["export", *work, *directory], ["verify", *directory]):
        assert patches_cli.main(arguments) == 0
    assert patches_cli.main(["lint", *directory]) == patches_cli.main(["stats", *directory]) == 0
    assert "no patch changed" in capsys.readouterr().out
    edit(patches, 1, "Forwarded", "Sent")
    assert patches_cli.main(["lint", *directory]) == 1
    assert capsys.readouterr().err.startswith("error: 1 problems in ")


def test_script_runs() -> None:
    done = subprocess.run(
        [REPOSITORY / "tools" / "patches", "--help"], capture_output=True, text=True, check=True
    )
    assert "verify" in done.stdout


def test_real_series() -> None:
    assert lint(PATCHES) == []


def test_write_patches_makes_the_directory(tmp_path: Path) -> None:
    assert [path.name for path in write_patches([], tmp_path / "new")] == ["series"]
