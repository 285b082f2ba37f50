"""A plugin whose hook does whatever is bad, as a request's header says."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.server.completions import BODIES
from tests.server.harness import Server

CHAT = "/v1/chat/completions"
PROMETHEUS = "/v1/atlas/metrics/prometheus"
# Short, as it is waited for to its end; and one that nothing waits for.
DEADLINE_MS, LONG_MS = 100, 60_000
BREACHES = 3

# What the header X-Do says, the plugin does in on_request; OPTIONS are those of the hook.
PLUGIN = """
import sys
from atlas_plugin import Reject, Respond, Response, StreamChunk

locked = threading.Lock()
locked.acquire()
is_released = False

def enter(what):
    (HERE / f"{what}.entered").touch()

def sleep():
    while not is_released:
        time.sleep(0.005)

def spin():
    while not is_released:
        pass

def deadlock():
    locked.acquire()
    locked.release()

def hold():
    ctypes.PyDLL(str(HERE / "hold_interpreter.so")).hold(bytes(HERE / "hold.entered"), bytes(HERE / "fifo"))

def recurse():
    return recurse() + 1

class Recursing:
    def __repr__(self):
        return repr([self])

def recurse_in_c():
    return repr(Recursing())

def throw():
    raise RuntimeError("a plugin is broken")

def leave():
    sys.exit(3)

def interrupt():
    raise KeyboardInterrupt

def nonsense():
    return "nonsense"

def work():
    return Respond(Response(202, {"by": "a plugin"}))

def start_threads():
    for _ in range(20):
        threading.Thread(target=sleep, daemon=True).start()
        threading.Thread(target=sleep, daemon=False).start()

def nothing():
    pass

@hookimpl(OPTIONS)
def on_request(request):
    what = request.headers["x-do"] if "x-do" in request.headers else "nothing"
    enter(what) if what != "hold" else None
    return globals()[what]()

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/release")
    def release(request):
        global is_released
        is_released = True
        with contextlib.suppress(RuntimeError):
            locked.release()
"""
STUCK = ["sleep", "spin", "deadlock", "hold"]
FAILING = ["recurse", "recurse_in_c", "throw", "leave", "interrupt", "nonsense"]


@dataclass(frozen=True)
class Misbehaving:
    """A server with the plugin above, named `probe`."""

    server: Server
    here: Path

    def ask(self, what: str = "nothing", **fields: Any) -> httpx.Response:
        """A chat of one token, with what the hook is to do."""
        body = {**BODIES[CHAT], "max_tokens": 1, **fields}
        return self.server.post(CHAT, body, headers={"X-Do": what})

    def metric(self, name: str, plugin: str = "probe", hook: str = "on_request") -> float:
        """A sample of a hook's; the server answers it without Python."""
        for family in parse_text(self.server.get(PROMETHEUS).text):
            for one in family.samples:
                if one.name == name and (one.labels["plugin"], one.labels["hook"]) == (plugin, hook):
                    return float(one.value)
        raise LookupError(name)

    def missed(self) -> float:
        """Deadlines missed, whoever's fault that was."""
        return self.metric("atlas_hook_timeouts_total") + self.metric("atlas_hook_unserved_total")

    def told(self, plugin: str = "probe") -> dict[str, Any]:
        """What GET /v1/atlas/plugins says of its only hook."""
        listed = self.server.get("/v1/atlas/plugins").json()["data"]["plugins"]
        (hook,) = next(one for one in listed if one["name"] == plugin)["request_hooks"]
        found: dict[str, Any] = hook
        return found

    def release(self, what: str) -> None:
        """End what hangs."""
        if what == "hold":
            with suppress(OSError):  # nobody waits any more
                os.close(os.open(self.here / "fifo", os.O_WRONLY | os.O_NONBLOCK))
        else:
            self.server.get("/v1/atlas/x/release")

    def has_entered(self, what: str) -> bool:
        return (self.here / f"{what}.entered").exists()
