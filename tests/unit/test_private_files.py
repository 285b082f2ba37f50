"""Files that only the owner can read, whole or not at all."""

import os
from pathlib import Path

import pytest

from atlas_plugin.storage import private_files


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError("no space")

    path = tmp_path / "file"
    private_files.replace(path, b"old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr("os.fsync", fail)
        private_files.replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_only_abandoned_files_are_removed(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in ("a.tmp", "b.tmp", "c"))
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (1, 1))
    private_files.remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == [young, other]
