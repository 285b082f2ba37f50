"""Libraries that a server is started with, and that stand before functions that it calls."""

import subprocess
from pathlib import Path

# Each batch takes as many milliseconds more as the file says.
_SLOW_BATCHES = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

int llama_process(void * context, int type, void * batch) {
    static int (*next)(void *, int, void *);
    if (!next) {
        next = dlsym(RTLD_NEXT, "llama_process");
    }
    int ms = 0;
    FILE * file = fopen(PATH, "r");
    if (file) {
        (void) !fscanf(file, "%d", &ms);
        fclose(file);
    }
    usleep(ms * 1000);
    return next(context, type, batch);
}
"""

# A disk that answers nothing: syncs do not return while the file is there. `hanging` says that one waits.
_HANGING_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

static void hang(void) {
    while (access(PATH, F_OK) == 0) {
        close(open(PATH "ing", O_CREAT | O_WRONLY, 0600));
        usleep(10000);
    }
}

int fsync(int fd) {
    hang();
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    hang();
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


def preloaded(directory: Path, name: str, source: str) -> dict[str, str]:
    """The environment of a server with the library of that C source; PATH in it is the file `name`."""
    code, library = directory / f"{name}.c", directory / f"{name}.so"
    code.write_text(source, encoding="ascii")
    define = f'-DPATH="{directory / name}"'
    subprocess.run(["cc", "-shared", "-fPIC", define, "-o", library, code], check=True)
    return {"LD_PRELOAD": str(library)}


class SlowBatches:
    """Makes every batch of a server take some time more, however fast the machine is."""

    def __init__(self, directory: Path, ms: int) -> None:
        self._path = directory / "batch-ms"
        self.set(ms)
        self.environment = preloaded(directory, self._path.name, _SLOW_BATCHES)

    def set(self, ms: int) -> None:
        """From the next batch on."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{ms}", encoding="ascii")
        fresh.replace(self._path)


class HangingDisk:
    """A disk whose syncs return, until they hang."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "hang"
        self.environment = preloaded(directory, self._path.name, _HANGING_DISK)

    def hang(self) -> None:
        """From now on."""
        self._path.touch()

    def hangs(self) -> bool:
        """Whether somebody waits."""
        return self._path.with_name("hanging").exists()
