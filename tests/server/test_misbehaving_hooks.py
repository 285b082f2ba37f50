"""Plugins whose hooks hang, spin, recurse, raise or hold the interpreter: all else goes on."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.completions import BODIES, ENDLESS_OPTIONS, Leaving, endless
from tests.server.conftest import StartServer
from tests.server.harness import stream_events, write_plugin
from tests.server.lifecycle import SHUTDOWN_HOOK
from tests.server.misbehaving import (
    BREACHES,
    CHAT,
    DEADLINE_MS,
    FAILING,
    LONG_MS,
    PLUGIN,
    STUCK,
    Misbehaving,
)

# What the server may add to a deadline.
ALLOWED_MS = 5
N_TRIES = 12
# Who holds the interpreter holds up what Python adds to the metrics, too; no test here is about that.
PATIENCE = ("--atlas-python-patience-ms", "50")

Start = Callable[..., Misbehaving]


@pytest.fixture(scope="session")
def holding_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("library") / "hold_interpreter.so"
    source = Path(__file__).with_name("hold_interpreter.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.fixture
def start(start_server: StartServer, tmp_path: Path, holding_library: Path) -> Iterator[Start]:
    """Start a server with the plugin; `source` comes behind it, `others` are plugins by name."""
    (tmp_path / "hold_interpreter.so").symlink_to(holding_library)
    os.mkfifo(tmp_path / "fifo")

    def starting(
        *options: str | Path,
        hook: str = f"deadline_ms={DEADLINE_MS}",
        source: str = "",
        others: dict[str, str] | None = None,
        **named: Any,
    ) -> Misbehaving:
        text = "import contextlib\n" + SHUTDOWN_HOOK + PLUGIN.replace("OPTIONS", hook) + source
        paths = [write_plugin(tmp_path, text)]
        for name, other in (others or {}).items():
            paths.append(write_plugin(tmp_path, "from atlas_plugin import *\n" + other, name))
        arguments = ["--atlas-plugin", ",".join(map(str, paths)), "--atlas-hook-breaches", f"{BREACHES}"]
        arguments += PATIENCE
        return Misbehaving(start_server([*arguments, *ENDLESS_OPTIONS, *options], **named), tmp_path)

    yield starting


@pytest.mark.parametrize("what", STUCK)
def test_a_request_waits_until_the_deadline_and_goes_on(start: Start, what: str) -> None:
    probe = start("--atlas-hook-breaches", "1000")
    waited_ms = []
    for _ in range(N_TRIES):
        before = probe.metric("atlas_hook_wait_seconds_total")
        answer = probe.ask(what)
        assert (answer.status_code, answer.json()["object"]) == (200, "chat.completion")
        waited_ms.append((probe.metric("atlas_hook_wait_seconds_total") - before) * 1e3)
    assert min(waited_ms) >= DEADLINE_MS
    # By the server's clock. A busy machine wakes who waited when it likes; the quickest tells what is added.
    assert min(waited_ms) <= DEADLINE_MS + ALLOWED_MS
    assert probe.missed() == N_TRIES
    assert probe.metric("atlas_hook_timeouts_total") >= 1


@pytest.mark.parametrize("what", STUCK)
def test_one_that_fails_closed_refuses_at_the_deadline(start: Start, what: str) -> None:
    answer = start(hook=f'deadline_ms={DEADLINE_MS}, fails="closed"').ask(what)
    assert answer.status_code == 503
    assert message(answer) == "plugin 'probe' must allow this request and did not answer in time"


@pytest.mark.parametrize("what", FAILING)
def test_one_that_fails_is_passed_over_at_once(start: Start, what: str) -> None:
    probe = start(hook=f"deadline_ms={LONG_MS}")
    for _ in range(BREACHES + 1):  # it is never off for that
        assert probe.ask(what).status_code == 200
    assert probe.metric("atlas_hook_wait_seconds_total") < LONG_MS / 1e3
    assert probe.missed() == 0
    assert probe.metric("atlas_hook_errors_total") == BREACHES + 1
    assert probe.server.logged("plugin 'probe' failed in on_request")
    (problem,) = probe.server.get("/v1/atlas/status").json()["problems"]
    assert problem.startswith("plugin 'probe' fails in on_request: ")
    assert probe.ask("work").status_code == 202
    assert probe.server.get("/v1/atlas/status").json()["problems"] == []


@pytest.mark.parametrize("what", FAILING)
def test_one_that_fails_and_fails_closed_refuses(start: Start, what: str) -> None:
    probe = start(hook=f'deadline_ms={LONG_MS}, fails="closed"')
    for _ in range(BREACHES + 1):
        answer = probe.ask(what)
        assert answer.status_code == 503
        assert message(answer) == "plugin 'probe' must allow this request and failed"
    assert probe.ask("work").status_code == 202


@pytest.mark.parametrize("what", STUCK)
def test_streams_go_on_while_a_hook_is_stuck(start: Start, what: str) -> None:
    probe = start(hook=f"deadline_ms={LONG_MS}")
    with endless(probe.server) as lines:
        asked = threading.Thread(target=lambda: suppressed(probe, what))
        asked.start()
        probe.server.wait_until(lambda: probe.has_entered(what))
        for _ in range(100):
            next(lines)
        assert asked.is_alive()
        probe.release(what)
        asked.join()
    assert probe.missed() == 0


def suppressed(probe: Misbehaving, what: str) -> None:
    with suppress(httpx.TransportError):
        probe.ask(what)


def turn_off(probe: Misbehaving, what: str, status: int = 200) -> None:
    """Ask until it is off; a busy machine may not begin some calls in time, which count for nobody."""
    while not probe.metric("atlas_hook_off"):
        assert probe.ask(what).status_code == status
        if what == "hold":
            probe.release(what)
            probe.server.get("/v1/atlas/x/nothing")  # waits until Python is free


@pytest.mark.parametrize("fails", ["open", "closed"])
@pytest.mark.parametrize("what", STUCK)
def test_it_is_off_after_deadlines_missed_in_a_row(start: Start, what: str, fails: str) -> None:
    probe = start("--atlas-hook-workers", "1", hook=f'deadline_ms={DEADLINE_MS}, fails="{fails}"')
    turn_off(probe, what, 200 if fails == "open" else 503)
    server = probe.server
    assert server.logged(
        f"plugin 'probe' missed its deadline of {DEADLINE_MS} ms {BREACHES} times in a row and is off"
    )
    assert probe.metric("atlas_hook_timeouts_total") == BREACHES
    status = server.get("/v1/atlas/status").json()
    assert status["status"] == "degraded"
    assert any("plugin 'probe' is off in on_request" in problem for problem in status["problems"])
    told = probe.told()
    assert (told["is_off"], told["timeouts"], told["fails"]) == (True, BREACHES, fails)

    # Nobody asks it, so nobody waits.
    waited, answer = probe.metric("atlas_hook_wait_seconds_total"), probe.ask("work")
    assert probe.metric("atlas_hook_wait_seconds_total") == waited
    if fails == "open":
        assert answer.status_code == 200
    else:
        assert answer.status_code == 503
        assert "plugin 'probe' must allow this request and is off" in message(answer)

    # It works again, though the one worker that it may have is still stuck in each call of before.
    assert server.post("/v1/atlas/plugins/probe/enable").json()["data"] == {"was_off": True}
    assert not probe.told()["is_off"]
    while probe.ask("work").status_code != 202:  # late on a busy machine
        server.post("/v1/atlas/plugins/probe/enable")
    assert server.get("/v1/atlas/status").json()["status"] == "healthy"
    assert server.post("/v1/atlas/plugins/probe/enable").json()["data"] == {"was_off": False}


BYSTANDER = """
@hookimpl
def on_request(request):
    if "x-other" in request.headers:
        return Respond(Response(201, {"by": "another"}))
"""


@pytest.mark.parametrize("priority", [-1, 1], ids=["before", "behind"])
@pytest.mark.parametrize("what", STUCK)
def test_others_are_not_blamed(start: Start, what: str, priority: int) -> None:
    """Whether they are asked before the one that hangs, or behind it."""
    probe = start(
        "--atlas-hook-deadline-ms",
        f"{DEADLINE_MS}",
        hook=f"deadline_ms={DEADLINE_MS}, priority={-priority}",
        others={"other": BYSTANDER},
    )
    has_ended = threading.Event()

    def keep_asking() -> None:
        while not has_ended.is_set():
            suppressed(probe, "nothing")

    asking = [threading.Thread(target=keep_asking) for _ in range(3)]
    for each in asking:
        each.start()
    try:
        for _ in range(5):
            assert probe.ask(what).status_code == 200
            if what == "hold":
                probe.release(what)
    finally:
        has_ended.set()
        for each in asking:
            each.join()
    assert probe.metric("atlas_hook_timeouts_total") >= 1
    assert not probe.metric("atlas_hook_off", "other")
    body = {**BODIES[CHAT], "max_tokens": 1}
    probe.release(what)
    while probe.server.post(CHAT, body, headers={"X-Other": "1"}).status_code != 201:
        assert not probe.metric("atlas_hook_off", "other")


@pytest.mark.parametrize("what", STUCK)
def test_the_end_with_stuck_hooks(start: Start, tmp_path: Path, what: str) -> None:
    probe = start("--atlas-shutdown-timeout", "1", hook=f"deadline_ms={DEADLINE_MS}")
    for _ in range(2):
        assert probe.ask(what).status_code == 200
    assert probe.server.stop() == 0
    # who holds the interpreter keeps the hooks of the end from running, too
    assert (tmp_path / "shutdown.ran").exists() == (what != "hold")


def test_the_end_while_a_request_waits_for_a_hook(start: Start, tmp_path: Path) -> None:
    probe = start("--atlas-shutdown-timeout", "600", hook=f"deadline_ms={5 * DEADLINE_MS}")
    asked = threading.Thread(target=lambda: suppressed(probe, "sleep"))
    asked.start()
    probe.server.wait_until(lambda: probe.has_entered("sleep"))
    assert probe.server.stop() == 0
    asked.join()
    assert (tmp_path / "shutdown.ran").exists()


FINISHED = """
@hookimpl(deadline_ms=FINISHED_MS)
def on_finished(request):
    (HERE / "finished.entered").touch()
    FINISHED_DOES
    with open(HERE / "finished", "a") as file:
        file.write(".")
"""


def finishing(does: str, deadline_ms: int) -> str:
    return FINISHED.replace("FINISHED_DOES", does).replace("FINISHED_MS", f"{deadline_ms}")


@pytest.mark.parametrize("deadline_ms", [1, LONG_MS])
def test_on_finished_that_hangs_holds_nothing(start: Start, deadline_ms: int) -> None:
    probe = start("--atlas-shutdown-timeout", "1", source=finishing("time.sleep(3600)", deadline_ms))
    for _ in range(20):  # more than there are workers
        assert probe.ask().status_code == 200
    probe.server.wait_until(lambda: probe.has_entered("finished"))
    assert probe.server.stop() == 0


def test_all_are_told_of_what_finished_before_the_end(start: Start, tmp_path: Path) -> None:
    """By one worker, which hangs in one of the last calls: another takes its place, and no request comes."""
    source = finishing("next(numbers) == 26 and time.sleep(3600)", 20 * DEADLINE_MS)
    source += "\nnumbers = iter(range(1000))\n"
    probe = start("--atlas-shutdown-timeout", "600", "--atlas-hook-workers", "1", source=source)
    for _ in range(30):
        assert probe.ask().status_code == 200
    assert probe.server.stop() == 0
    assert (tmp_path / "shutdown.ran").exists()
    assert (tmp_path / "finished").read_text() == "." * 29


def test_threads_that_a_hook_starts(start: Start) -> None:
    probe = start(hook=f"deadline_ms={LONG_MS}")
    for _ in range(3):
        assert probe.ask("start_threads").status_code == 200
    assert probe.ask("work").status_code == 202
    assert probe.server.stop() == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_a_hook_runs(start: Start, stream: bool) -> None:
    source = """
@hookimpl
def on_failed(record):
    (HERE / record["outcome"]).touch()
"""
    probe = start(hook=f"deadline_ms={LONG_MS}", source=source)
    with Leaving(probe.server, {**BODIES[CHAT], "stream": stream}, "X-Do: sleep\r\n", path=CHAT):
        probe.server.wait_until(lambda: probe.has_entered("sleep"))
    assert probe.ask("work").status_code == 202
    probe.release("sleep")
    probe.server.wait_until((probe.here / "cancelled").exists)
    assert probe.missed() == 0


def test_a_stream_whose_chunks_hang(start: Start) -> None:
    """Each chunk waits until the deadline, until the hook is off; not one event is lost."""
    source = f"""
@hookimpl(deadline_ms={DEADLINE_MS}, batch=4)
def on_stream_chunk(request, chunk):
    if request.headers["x-do"] == "hang":
        sleep()

def hang():
    pass
"""
    probe = start(source=source)
    body = {**BODIES[CHAT], "max_tokens": 64, "ignore_eos": True, "temperature": 0, "stream": True, "n": 2}
    right, hung = (probe.server.post(CHAT, body, headers={"X-Do": what}) for what in ("nothing", "hang"))
    assert texts(hung) == texts(right)
    assert probe.metric("atlas_hook_off", hook="on_stream_chunk")
    assert hung.text.rstrip().endswith("[DONE]")


def texts(answer: httpx.Response) -> dict[int, str]:
    """What each choice of a streamed chat says."""
    said: dict[int, str] = {}
    for event in stream_events(answer.text):
        for choice in event["choices"]:
            said[choice["index"]] = said.get(choice["index"], "") + (choice["delta"].get("content") or "")
    return said


def message(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["message"])
