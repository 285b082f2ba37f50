"""tools/patches drift: what of a series another source tree refuses."""

from pathlib import Path

import pytest

from atlas_build import patches_cli
from atlas_build.patchwork import PatchRepository
from atlas_build.source import Source
from tests.unit.patch_repositories import commit, message

FAR = [f"int x{number};" for number in range(30)]


def llama_tree(path: Path, lines: list[str]) -> Path:
    """What passes for a llama.cpp tree, with a file of these lines."""
    for name in ("CMakeLists.txt", "include/llama.h", "tools/server/server.cpp"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    (path / "far.cpp").write_text("\n".join(lines) + "\n")
    return path


def test_drift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pristine = Source(llama_tree(tmp_path / "pristine", FAR), "fake")
    repository = PatchRepository.create(tmp_path / "work", pristine, "fake")
    lines = [*FAR]
    lines[4], lines[25] = "int once;", "int end;"
    commit(repository, message("Change two places"), far_cpp="\n".join(lines) + "\n")
    lines[4] = "int twice;"
    commit(repository, message("Change one again"), far_cpp="\n".join(lines) + "\n")
    repository.save(tmp_path / "patches")
    command = ["drift", "--patches", str(tmp_path / "patches")]

    def refused(lines: list[str]) -> list[str]:
        tree = llama_tree(tmp_path / "tree", lines)
        status = patches_cli.main([*command, str(tree)])
        assert (tree / "far.cpp").read_text() == "\n".join(lines) + "\n"
        out, err = capsys.readouterr()
        if status == 0:
            assert out == f"all 3 hunks apply to {tree}\n"
            return []
        head, *listed = err.splitlines()
        assert (status, head) == (1, f"error: {len(listed)} of 3 hunks do not apply to {tree}:")
        return listed

    first, again = (
        "0001-change-two-places.patch: far.cpp:",
        "0002-change-one-again.patch: far.cpp:2 (hunk 1 of 1)",
    )
    assert refused(FAR) == refused(["int before;", *FAR]) == []
    assert refused([*FAR[:24], "int inserted;", *FAR[24:]]) == [f"{first}23 (hunk 2 of 2)"]
    assert refused([*FAR[:3], "int inserted;", *FAR[3:]]) == [f"{first}2 (hunk 1 of 2)", again]
    assert refused([]) == [f"{first}2 (hunk 1 of 2)", f"{first}23 (hunk 2 of 2)", again]
    (tmp_path / "tree" / "far.cpp").unlink()
    assert patches_cli.main([*command, str(tmp_path / "tree")]) == 1
    assert capsys.readouterr().err.startswith("error: 3 of 3 hunks do not apply")
    assert patches_cli.main([*command, str(tmp_path)]) == 1
    assert "is not a llama.cpp source tree" in capsys.readouterr().err
