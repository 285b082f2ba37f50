"""A plugin with a tier of the memory that keeps files, and does whatever is bad, as a file says."""

import json
from pathlib import Path
from typing import Any

from tests.server.conversations import memory_status
from tests.server.harness import Server

# A directory that servers share. `do` in it says what goes wrong, as {"method": "misdeed"}.
PLUGIN = """
import json, os, sys, threading, time
from pathlib import Path
from atlas_plugin import *

HERE = Path(HERE_PATH)
locked = threading.Lock()
locked.acquire()

def is_told(method, what):
    try:
        return json.loads((HERE / "do").read_text()).get(method) == what
    except (OSError, ValueError):
        return False

def sleep(method):
    while is_told(method, "sleep"):
        time.sleep(0.005)

def spin(method):
    while is_told(method, "spin"):
        pass

def hold(method):
    import ctypes
    ctypes.PyDLL(str(HERE / "hold_interpreter.so")).hold(bytes(HERE / "entered"), bytes(HERE / "fifo"))

class Files(Tier):
    name = "files"
    layer = LAYER
    deadline_ms = DEADLINE_MS

    def file(self, key):
        return HERE / "kept" / key.replace(":", "_")

    def misbehave(self, method, right):
        if is_told(method, "sleep"):
            sleep(method)
        elif is_told(method, "spin"):
            spin(method)
        elif is_told(method, "hold"):
            hold(method)
        elif is_told(method, "throw"):
            raise RuntimeError("a tier is broken")
        elif is_told(method, "leave"):
            sys.exit(3)
        elif is_told(method, "type"):
            return "nonsense"
        elif is_told(method, "none"):
            return None
        elif is_told(method, "count"):
            return [*right, *right]
        elif is_told(method, "flip"):
            return [bytes(one)[:-1] + bytes([bytes(one)[-1] ^ 1]) for one in right]
        elif is_told(method, "short"):
            return [bytes(one)[:-1] for one in right]
        elif is_told(method, "large"):
            return [bytes(one) + bytes(1 << 26) for one in right]
        elif is_told(method, "too_large"):
            return [memoryview(bytes(1 << 29)) for one in right] * 2
        elif is_told(method, "other"):
            return [b"x" * 100 for one in right]
        elif is_told(method, "all"):
            return [True for one in right]
        return right

    def probe(self, keys):
        return self.misbehave("probe", [self.file(key).exists() for key in keys])

    def get(self, keys):
        values = []
        for key in keys:
            if not self.file(key).exists():
                break
            values.append(self.file(key).read_bytes())
        return self.misbehave("get", values)

    def put(self, key, value, ttl_s):
        self.misbehave("put", [])
        part = self.file(key).with_suffix(f".{os.getpid()}.part")
        part.write_bytes(value)
        part.rename(self.file(key))

    def remove(self, keys):
        self.misbehave("remove", [])
        for key in keys:
            self.file(key).unlink(missing_ok=True)

    def stats(self):
        sizes = [file.stat().st_size for file in (HERE / "kept").iterdir()]
        return TierStats(len(sizes), sum(sizes))

@hookimpl
def register_tiers():
    return [Files()]
"""


def write_tier(
    directory: Path, *, name: str = "kept", layer: int = 4, deadline_ms: int = 5000, more: str = ""
) -> Path:
    """The plugin's file; what it keeps lies in `directory`/kept."""
    (directory / "kept").mkdir(exist_ok=True)
    source = PLUGIN.replace("HERE_PATH", repr(str(directory))).replace("LAYER", f"{layer}")
    path = directory / f"{name}.py"
    path.write_text(source.replace("DEADLINE_MS", f"{deadline_ms}") + more, encoding="utf-8")
    return path


def misbehave(directory: Path, **how: str) -> None:
    """From now on, each method named does so; without any all is well."""
    part = directory / "do.part"
    part.write_text(json.dumps(how), encoding="utf-8")
    part.rename(directory / "do")


def tier_of(server: Server, layer: int) -> dict[str, Any]:
    """What the status says of a layer."""
    (found,) = [one for one in memory_status(server)["tiers"] if one["layer"] == layer]
    tier: dict[str, Any] = found
    return tier


def share(server: Server, layer: int) -> None:
    """Wait until all that was answered before is in the layers up to this one."""
    response = server.post("/v1/atlas/memory/flush", {"timeout_s": 60, "layer": layer})
    assert response.status_code == 200, response.text
