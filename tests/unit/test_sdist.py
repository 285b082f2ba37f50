"""Pin files, and fetching source distributions with a stand-in for pip."""

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest

from atlas_build import sdist
from atlas_build.console import REPOSITORY, BuildError
from atlas_build.pin import Pin, read_pin
from atlas_build.sdist import fetch_sdist

Member = tuple[str, bytes | None]  # None: a symbolic link

CONTENT: list[Member] = [
    ("thing-1.0/a/b/x.h", b"x"),
    ("thing-1.0/a/b/c/y.h", b"y"),
    ("thing-1.0/other", b"no"),
]


def make_archive(members: list[Member]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()


def pin_for(data: bytes, subdir: str = "a/b") -> Pin:
    return Pin("thing==1.0", hashlib.sha256(data).hexdigest(), subdir)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pip that downloads `served`, or fails when there is none, and notes each run in `served.log`."""
    served = tmp_path / "served"
    script = tmp_path / "pip.py"
    script.write_text(
        "import pathlib, shutil, sys\n"
        f"served = pathlib.Path({str(served)!r})\n"
        "if '--version' in sys.argv: sys.exit(0)\n"
        "with served.with_suffix('.log').open('a') as log: log.write(' '.join(sys.argv[1:]) + chr(10))\n"
        "if not served.exists(): sys.exit('ERROR: No matching distribution found for thing')\n"
        "shutil.copy(served, pathlib.Path(sys.argv[sys.argv.index('-d') + 1]) / 'thing-1.0.tar.gz')\n"
    )
    monkeypatch.setattr(sdist, "PIP", (sys.executable, str(script)))
    return served


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


def test_fetch_extracts_the_subdirectory_once(pip: Path, cache: Path) -> None:
    pip.write_bytes(make_archive(CONTENT))
    tree = fetch_sdist(pin_for(pip.read_bytes()), cache)
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*.h")) == ["c/y.h", "x.h"]
    assert not list(tree.rglob("other"))
    assert fetch_sdist(pin_for(pip.read_bytes()), cache) == tree
    log = pip.with_suffix(".log").read_text().splitlines()
    assert len(log) == 1
    assert "--no-deps --no-binary thing --require-hashes" in log[0]
    assert leftovers(cache) == ["thing-1.0"]


def test_cache_can_be_moved(pip: Path, cache: Path, tmp_path: Path) -> None:
    pip.write_bytes(make_archive(CONTENT))
    pin = pin_for(pip.read_bytes())
    fetch_sdist(pin, cache)
    moved = cache.rename(tmp_path / "moved")
    assert (fetch_sdist(pin, moved) / "x.h").read_bytes() == b"x"
    assert len(pip.with_suffix(".log").read_text().splitlines()) == 1


def test_changed_pin_replaces_the_entry(pip: Path, cache: Path) -> None:
    pip.write_bytes(make_archive(CONTENT))
    fetch_sdist(pin_for(pip.read_bytes()), cache)
    pip.write_bytes(make_archive([("thing-1.0/a/b/z.h", b"z")]))
    tree = fetch_sdist(pin_for(pip.read_bytes()), cache)
    assert [path.name for path in tree.iterdir()] == ["z.h"]


def test_wrong_hash(pip: Path, cache: Path) -> None:
    pip.write_bytes(make_archive(CONTENT))
    with pytest.raises(
        BuildError, match=rf"thing-1.0.tar.gz has sha256 [0-9a-f]{{64}}, the pin says {'0' * 64}"
    ):
        fetch_sdist(Pin("thing==1.0", "0" * 64, "a/b"), cache)
    assert leftovers(cache) == []


def test_archive_put_into_the_cache_is_checked(pip: Path, cache: Path) -> None:
    data = make_archive(CONTENT)
    cache.mkdir()
    (cache / "thing-1.0.tar.gz").write_bytes(data[:-20])
    with pytest.raises(BuildError, match="deleted it; run again"):
        fetch_sdist(pin_for(data), cache)
    assert leftovers(cache) == []
    (cache / "thing-1.0.tar.gz").write_bytes(data)
    assert (fetch_sdist(pin_for(data), cache) / "x.h").is_file()
    assert not pip.with_suffix(".log").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make_archive([*CONTENT, ("thing-1.0/big", bytes(range(256)) * 99)])[:-30], "is damaged"),
        (b"not an archive", "is damaged"),
        (make_archive([*CONTENT, ("thing-1.0/a/b/../../../evil", b"")]), r"unsafe path '.*\.\./evil'"),
        (make_archive([*CONTENT, ("/etc/evil", b"")]), "unsafe path '/etc/evil'"),
        (make_archive([*CONTENT, ("thing-1.0/a/b/link", None)]), "'thing-1.0/a/b/link' is not a plain file"),
        (make_archive([("thing-1.0/other", b"")]), "holds no a/b/"),
    ],
    ids=["truncated", "no archive", "traversal", "absolute", "link", "no subdir"],
)
def test_bad_archive_leaves_nothing(pip: Path, cache: Path, data: bytes, message: str) -> None:
    pip.write_bytes(data)
    with pytest.raises(BuildError, match=message):
        fetch_sdist(pin_for(data), cache)
    assert leftovers(cache) == []


def test_failed_download_shows_why_and_what_to_do(pip: Path, cache: Path) -> None:
    with pytest.raises(
        BuildError, match=r"(?s)No matching distribution.*put thing-1.0.tar.gz into .*, or pray"
    ):
        fetch_sdist(pin_for(b""), cache, ", or pray")
    assert leftovers(cache) == []
    assert not pip.exists()


def test_no_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdist, "PIP", (sys.executable, "-m", "no_such_module"))
    with pytest.raises(BuildError, match="apt-get install python3-pip"):
        fetch_sdist(pin_for(b""), cache)


def test_interrupted_extraction_is_not_taken_for_complete(
    pip: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    pip.write_bytes(make_archive(CONTENT))
    pin = pin_for(pip.read_bytes())
    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfileobj", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch_sdist(pin, cache)
    assert leftovers(cache) == []
    (cache / ".thing-1.0.new" / "entry" / "tree").mkdir(parents=True)  # as after kill -9
    assert (fetch_sdist(pin, cache) / "x.h").is_file()


@pytest.mark.parametrize("name", ["libvalkey", "llama-cpp", "tomlplusplus"])
def test_pins_of_the_repository(name: str) -> None:
    pin = read_pin(REPOSITORY / "cmake" / f"{name}.pin")
    assert pin.archive.endswith(f"-{pin.version}.tar.gz")
    assert bool(pin.commit and pin.build and pin.url) == (name == "llama-cpp")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("colour = red", r"pin:4: expected `key = value`"),
        ("subdir", r"pin:4: expected `key = value`"),
        ("subdir = other", r"pin:4: subdir is given twice"),
        ("build = 12x", r"pin:4: build = '12x' does not have the form"),
        ("commit = 0c1e57", r"pin:4: commit = '0c1e57'"),
    ],
)
def test_malformed_pin(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "pin"
    path.write_text(f"sdist = a==1\nsha256 = {'0' * 64}\nsubdir = a/b\n{change}\n")
    with pytest.raises(BuildError, match=message):
        read_pin(path)


def test_incomplete_pin(tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_text("# nothing\nsubdir = ../up\n")
    with pytest.raises(BuildError, match=r"subdir = '\.\./up'"):
        read_pin(path)
    path.write_text("sdist = a==1\n")
    with pytest.raises(BuildError, match="sha256, subdir missing"):
        read_pin(path)
    with pytest.raises(BuildError, match="cannot read the pin file"):
        read_pin(tmp_path / "absent")
