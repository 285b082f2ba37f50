"""Libraries that a server is started with, and that stand before functions that it calls."""

import subprocess
from pathlib import Path

# Each batch takes as many milliseconds more as the file says.
_SLOW_BATCHES = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

static void wait_so_long(void) {
    int ms = 0;
    FILE * file = fopen(PATH, "r");
    if (file) {
        (void) !fscanf(file, "%d", &ms);
        fclose(file);
    }
    usleep(ms * 1000);
}

// The server's batches.
int llama_process(void * context, int type, void * batch) {
    wait_so_long();
    return ((int (*)(void *, int, void *)) dlsym(RTLD_NEXT, "llama_process"))(context, type, batch);
}

// Those of others, as where it is tried whether state fits.
typedef struct {
    int n_tokens;
    void * members[6];
} llama_batch;

int llama_decode(void * context, llama_batch batch) {
    wait_so_long();
    return ((int (*)(void *, llama_batch)) dlsym(RTLD_NEXT, "llama_decode"))(context, batch);
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

# Copying a block of state out of the context takes as many milliseconds more as the file says. `copies-made`
# gets a byte for each.
_SLOW_COPIES = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

#define FUNCTION _Z30llama_state_seq_get_data_rangeP13llama_contextPhmiRK16llama_cell_rangej
#define NAME(function) NAME_OF(function)
#define NAME_OF(function) #function

static int read_number(void) {
    int ms = 0;
    FILE * file = fopen(PATH, "r");
    if (file) {
        (void) !fscanf(file, "%d", &ms);
        fclose(file);
    }
    return ms;
}

size_t FUNCTION(void * context, void * to, size_t size, int sequence, const void * range, unsigned flags) {
    static size_t (*next)(void *, void *, size_t, int, const void *, unsigned);
    if (!next) {
        next = dlsym(RTLD_NEXT, NAME(FUNCTION));
    }
    if (to) {
        usleep(read_number() * 1000);
        FILE * file = fopen(PATH "-made", "a");
        fputc('.', file);
        fclose(file);
    }
    return next(context, to, size, sequence, range, flags);
}
"""


def preloaded(directory: Path, name: str, source: str) -> dict[str, str]:
    """The environment of a server with the library of that C source; PATH in it is the file `name`."""
    code, library = directory / f"{name}.c", directory / f"{name}.so"
    code.write_text(source, encoding="ascii")
    define = f'-DPATH="{directory / name}"'
    subprocess.run(["cc", "-shared", "-fPIC", define, "-o", library, code], check=True)
    return {"LD_PRELOAD": str(library)}


class _Slow:
    """Makes something that a server does take some time more, however fast the machine is."""

    def __init__(self, path: Path, ms: int, source: str) -> None:
        self._path = path
        self.set(ms)
        self.environment = preloaded(path.parent, path.name, source)

    def set(self, ms: int) -> None:
        """From the next one on."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{ms}", encoding="ascii")
        fresh.replace(self._path)


class SlowBatches(_Slow):
    """Every batch takes longer."""

    def __init__(self, directory: Path, ms: int) -> None:
        super().__init__(directory / "batch-ms", ms, _SLOW_BATCHES)


class SlowCopies(_Slow):
    """Every block of state takes longer to be copied, as from a device that is far away."""

    def __init__(self, directory: Path, ms: int) -> None:
        super().__init__(directory / "copies", ms, _SLOW_COPIES)

    def count(self) -> int:
        """How many were begun."""
        made = self._path.with_name("copies-made")
        return made.stat().st_size if made.exists() else 0


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


class HeldReads:
    """Models in `directory` cannot be hashed beyond their first 8 MiB, until they are released."""

    def __init__(self, directory: Path) -> None:
        self._released = directory / "released"
        self.directory = directory / "models"
        self.directory.mkdir()
        library = directory / "hold_reads.so"
        source = Path(__file__).with_name("hold_reads.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        self.environment = {
            "LD_PRELOAD": str(library),
            "HELD_DIRECTORY": str(self.directory),
            "RELEASED": str(self._released),
        }

    def release(self) -> None:
        """From now on reads are as fast as ever."""
        self._released.touch()
