"""A file that grows by lines: what is in it after rotation, a kill, a full disk, and with two that write."""

import errno
import os
import stat
from pathlib import Path

import pytest

from atlas_plugin.storage.line_log import LineLog


def log_at(path: Path, max_bytes: int = 1 << 20, keep: int = 2) -> LineLog:
    log = LineLog(path, max_bytes, keep)
    log.open()
    return log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep/er/audit.jsonl"


def test_files_are_private(path: Path) -> None:
    log = log_at(path, max_bytes=4)
    log.append([b"one\n", b"two\n"])
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_was_open_to_others(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one\n")
    path.chmod(0o644)
    log_at(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rotation(path: Path) -> None:
    log = log_at(path, max_bytes=8, keep=2)
    log.append([b"%d23\n" % i for i in range(9)])
    files = {one.name: one.read_bytes() for one in path.parent.iterdir() if one.suffix != ".lock"}
    assert files == {
        "audit.jsonl": b"823\n",
        "audit.jsonl.1": b"623\n723\n",
        "audit.jsonl.2": b"423\n523\n",
    }


def test_a_line_that_is_longer_than_a_file_may_be(path: Path) -> None:
    log = log_at(path, max_bytes=8)
    log.append([b"1\n", b"x" * 20 + b"\n", b"2\n"])
    assert path.with_name("audit.jsonl.1").read_bytes() == b"x" * 20 + b"\n"
    assert path.read_bytes() == b"2\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"one\n", b"one\n"),
        (b"one\ntw", b"one\n"),
        (b"on", b""),
        (b"one\n" + b"x" * 200_000, b"one\n"),
    ],
)
def test_a_broken_line_at_the_end(path: Path, before: bytes, after: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(before)
    log_at(path).append([b"new\n"])
    assert path.read_bytes() == after + b"new\n"


def test_a_disk_that_takes_a_part_of_a_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_at(path)
    real, room = os.write, [6]

    def write(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "no space left")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    lines = [b"one\n", b"two\n", b"three\n"]
    with pytest.raises(OSError, match="no space left"):
        log.append(lines)
    assert path.read_bytes() == b"one\n"
    assert lines == [b"two\n", b"three\n"]
    room[0] = 100
    log.append(lines)
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    assert lines == []


def test_two_that_write(path: Path) -> None:
    """What one rotates, the other does not go on with."""
    one, other = log_at(path, max_bytes=12, keep=9), log_at(path, max_bytes=12, keep=9)
    for i in range(4):
        one.append([b"one%d\n" % i])
        other.append([b"two%d\n" % i])
    files = sorted(
        (file for file in path.parent.glob("audit.jsonl*") if file.suffix != ".lock"), reverse=True
    )
    lines = b"".join(file.read_bytes() for file in files)
    assert lines == b"".join(b"one%d\ntwo%d\n" % (i, i) for i in range(4))
    assert all(file.stat().st_size <= 12 for file in files)


def test_a_file_that_was_taken_away(path: Path) -> None:
    log = log_at(path)
    log.append([b"one\n"])
    path.rename(path.with_name("elsewhere"))
    log.append([b"two\n"])
    assert path.read_bytes() == b"two\n"


def test_what_is_no_file(path: Path) -> None:
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(OSError, match="is no file"):
        log_at(path)
