"""A small file system, which only the processes that are started in it see: no root is needed for it."""

import errno
import subprocess
from pathlib import Path

_NAMESPACES = ["--user", "--mount"]


class SmallDisk:
    """A tmpfs of `size` bytes at `path`, in user and mount namespaces of its own, until `close`.

    A command that begins with `enter` runs there.
    """

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir()
        mount = f"mount -t tmpfs -o size={size},mode=700 none '{path}' && echo mounted && exec sleep infinity"
        self._holder = subprocess.Popen(
            ["unshare", *_NAMESPACES, "--map-root-user", "sh", "-c", mount], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"mounted\n", (
            "a user namespace with a mount is needed: run as root, or allow them, "
            "as by sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
        self.enter = [
            "nsenter", "--target", f"{self._holder.pid}", *_NAMESPACES, "--preserve-credentials",
        ]  # fmt: skip
        self.path = path
        self.outside = Path(f"/proc/{self._holder.pid}/root{path}")
        """The same directory, as seen by who is not in the namespaces."""
        self._ballast = self.outside / "ballast"

    def fill(self) -> None:
        """Leave no byte free."""
        try:
            with self._ballast.open("ab", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        except OSError as error:
            assert error.errno == errno.ENOSPC, error

    def make_room(self) -> None:
        """Take back what `fill` did."""
        self._ballast.unlink()

    def mount(self, mode: str) -> None:
        """Let it be written (`rw`) or only be read (`ro`)."""
        subprocess.run([*self.enter, "mount", "-o", f"remount,{mode}", self.path], check=True)

    def close(self) -> None:
        """Let go of it; whatever still runs there keeps it."""
        self._holder.kill()
        self._holder.communicate()
