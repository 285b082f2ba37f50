"""Fetching a pinned source distribution from PyPI into a cache that several build trees may share."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from atlas_build.console import BuildError
from atlas_build.pin import Pin
from atlas_build.workspace import exclusive_workspace

PIP: tuple[str, ...] = (sys.executable, "-m", "pip")


def fetch_sdist(pin: Pin, cache: Path, otherwise: str = "") -> Path:
    """Return the directory in `cache` that holds `pin.subdir`, fetched and checked when it is not there.

    An archive put into the cache by hand is used instead of a download. `otherwise` tells the user of another
    way after a failed download. Raises BuildError; then the cache holds nothing that passes for complete.
    """
    entry = cache / f"{pin.name}-{pin.version}"
    proof = f"{pin.sha256} {pin.subdir}\n"
    with exclusive_workspace(entry) as workspace:
        stamp = entry / "verified"
        if stamp.is_file() and stamp.read_text() == proof and (entry / "tree").is_dir():
            return entry / "tree"
        archive = cache / pin.archive
        if not archive.is_file():
            archive = _download(pin, workspace, cache, otherwise)
        _verify(archive, pin)
        fresh = workspace / "entry"
        _extract(archive, pin.subdir, fresh / "tree")
        (fresh / "verified").write_text(proof)
        if entry.exists():
            shutil.rmtree(entry)
        fresh.rename(entry)
    return entry / "tree"


def _download(pin: Pin, workspace: Path, cache: Path, otherwise: str) -> Path:
    if subprocess.run([*PIP, "--version"], capture_output=True, check=False).returncode:
        raise BuildError(
            f"{sys.executable} has no pip to fetch {pin.sdist}; run: apt-get install python3-pip"
        )
    print(f"fetching {pin.sdist} from PyPI", flush=True)
    requirements = workspace / "requirements.txt"
    requirements.write_text(f"{pin.sdist} --hash=sha256:{pin.sha256}\n")
    options = (
        "--no-deps",
        "--no-binary",
        pin.name,
        "--require-hashes",
        "--no-input",
        "--progress-bar",
        "off",
    )
    command = [*PIP, "download", *options, "-d", str(workspace), "-r", str(requirements)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    archives = sorted(workspace.glob("*.tar.gz"))
    if done.returncode or len(archives) != 1:
        last_lines = "\n".join(f"  {line}" for line in done.stdout.strip().splitlines()[-8:])
        if "DO NOT MATCH THE HASHES" in done.stdout:
            advice = "PyPI or a mirror served another file than the one pinned: do not build from it"
        else:
            advice = (
                f"this needs network access to PyPI; without it put {pin.archive} into {cache}{otherwise}"
            )
        raise BuildError(f"pip could not fetch {pin.sdist}:\n{last_lines}\n{advice}")
    return archives[0]


def _verify(archive: Path, pin: Pin) -> None:
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != pin.sha256:
        archive.unlink()
        raise BuildError(
            f"{archive} has sha256 {found}, the pin says {pin.sha256}: deleted it; run again to fetch it"
        )


def _extract(archive: Path, subdir: str, dest: Path) -> None:
    """Extract the files below `<top directory>/subdir`; links and paths that lead outside are refused.

    Written out because tarfile's data filter is absent from the Python 3.11.2 of Debian 12.
    """
    inside = PurePosixPath(subdir).parts
    depth = 1 + len(inside)
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise BuildError(f"{archive.name} holds the unsafe path {member.name!r}; refused")
                if path.parts[1:depth] != inside or member.isdir():
                    continue
                content = members.extractfile(member) if member.isreg() else None
                if content is None:
                    raise BuildError(f"{archive.name}: {member.name!r} is not a plain file; refused")
                target = dest.joinpath(*path.parts[depth:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as output:
                    shutil.copyfileobj(content, output)
                target.chmod(0o755 if member.mode & 0o100 else 0o644)
    except (tarfile.TarError, EOFError, zlib.error) as failure:
        raise BuildError(
            f"{archive.name} is damaged: {failure}; check the sha256 in the pin file"
        ) from failure
    if not dest.is_dir():
        raise BuildError(f"{archive.name} holds no {subdir}/; correct subdir in the pin file")
