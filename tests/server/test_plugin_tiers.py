"""Layers 4 to 10: what one server computed another finds through a plugin, and tiers that misbehave."""

import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import ASK_CITY, ONE_THREAD, Conversation, cold_chat, memory_status
from tests.server.harness import Server
from tests.server.tiers import misbehave, share, tier_of, write_tier

# Most of a conversation is text that both turns have.
N_ITEMS = 60
REUSED = 0.95
# Nothing waits for as long; a request that waited for a tier that hangs would take longer.
PATIENCE_S = 30
LONG_MS = 60_000
CHAT = "/v1/chat/completions"

StartTiered = Callable[..., Server]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the plugin of all servers keeps values."""
    directory = tmp_path / "place"
    directory.mkdir()
    return directory


@pytest.fixture
def start_tiered(start_server: StartServer, tmp_path: Path, place: Path) -> StartTiered:
    """Starts servers with the plugin, each with a memory path of its own."""

    def start(name: str, *more: str | Path, plugin: Path | None = None, layer: int = 4) -> Server:
        given = plugin or write_tier(place)
        paths = ["--atlas-memory-path", tmp_path / name, "--atlas-plugin", given]
        server = start_server([*ONE_THREAD, *paths, *more])
        server.wait_until(lambda: tier_of(server, layer)["round_trip_ms"] is not None)
        return server

    return start


def kept(place: Path) -> list[Path]:
    return sorted((place / "kept").glob("*[!t]"))


def first_turn(server: Server, number: int = 1, layer: int = 4, **atlas: Any) -> Conversation:
    told = Conversation(number, N_ITEMS)
    told.ask(server, atlas=atlas)
    share(server, layer)
    return told


def assert_found(server: Server, told: Conversation, layer: int = 4) -> None:
    """The next turn of what another server was told is answered as if all was computed here."""
    answer = told.ask(server, ASK_CITY, atlas={})
    assert (answer.layer, answer.reason) == (layer, None)
    assert answer.reused >= REUSED * answer.prompt
    assert answer.text == cold_chat(server, told.messages[:-1]).text


def samples(server: Server) -> dict[str, float]:
    text = server.get("/v1/atlas/metrics/prometheus").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text if line[:1] != "#"}


def test_a_conversation_goes_on_with_another_server(start_tiered: StartTiered, place: Path) -> None:
    first, second = start_tiered("a"), start_tiered("b")
    told = first_turn(first)
    assert tier_of(first, 4)["written"]["entries"] == len(kept(place)) > 0
    answer = told.ask(second, ASK_CITY, atlas={"session_id": "ada"})
    assert (answer.layer, answer.reason) == (4, None)
    assert answer.reused >= REUSED * answer.prompt
    assert answer.text == cold_chat(second, told.messages[:-1]).text
    body = second.post(CHAT, {"messages": told.asking("So?"), "max_tokens": 1, "atlas": {}}).json()
    assert body["atlas"]["layers_used"] == [1, 2, 4]
    record = second.get("/v1/atlas/requests").json()["data"]["requests"][0]
    assert record["memory"] == {"result": "restored", "layer": 4, "moved": ""}

    # every layer alike
    tiers = memory_status(second)["tiers"]
    assert [(one["layer"], one["name"], one["kind"]) for one in tiers] == [
        (1, "ram", "ram"),
        (2, "disk", "disk"),
        (4, "files", "plugin"),
    ]
    assert all(one.keys() == tiers[0].keys() for one in tiers)
    brought = tiers[2]
    assert (brought["address"], brought["restored"], brought["breaker"]) == ("plugin 'kept'", 1, "closed")
    assert brought["found"] >= brought["read"]["entries"] > 0
    assert brought["asked"] > brought["found"]
    assert (brought["timeouts"], brought["damaged"], brought["problem"]) == (0, 0, None)
    second.wait_until(lambda: tier_of(second, 4)["entries"] is not None)
    found = samples(second)
    assert found['atlas_restores_total{layer="4",result="restored"}'] == 1
    assert found['atlas_prompt_tokens_total{source="plugins"}'] == answer.reused
    for layer in ("ram", "disk", "4"):
        assert found[f'atlas_layer_up{{layer="{layer}"}}'] == 1
        assert found[f'atlas_layer_written_bytes_total{{layer="{layer}"}}'] >= 0
    assert found['atlas_layer_read_bytes_total{layer="4"}'] == brought["read"]["bytes"]
    assert found['atlas_layer_entries{layer="4"}'] == tier_of(second, 4)["entries"]

    # it is here now
    told.ask(second, ASK_CITY, atlas={})
    assert tier_of(second, 4)["read"] == brought["read"]
    (listed,) = [
        one for one in second.get("/v1/atlas/plugins").json()["data"]["plugins"] if one["name"] == "kept"
    ]
    (tier,) = listed["tiers"]
    assert (tier["name"], tier["layer"], tier["is_off"], tier["timeouts"]) == ("files", 4, False, 0)


def test_what_layer_3_lacks_is_found_in_layer_4(
    start_tiered: StartTiered, place: Path, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    url = ["--atlas-shared-url", f"file://{mount}"]
    first = start_tiered("a", *url)
    told, other = first_turn(first, 1), first_turn(first, 2)
    values = list(mount.glob("blocks/*/*/*.kv"))
    assert len(values) == len(kept(place)) > 0
    for file in values:
        file.unlink()
    second = start_tiered("b", *url)
    body = {"messages": other.asking(ASK_CITY), "max_tokens": 1, "atlas": {"memory_layers": 3}}
    atlas = second.post(CHAT, body).json()["atlas"]
    assert (atlas["layer"], atlas["reused_tokens"], atlas["layers_used"]) == (0, 0, [1, 2, 3])
    assert tier_of(second, 4)["asked"] == 0
    third = start_tiered("c", *url)
    assert_found(third, told)
    assert tier_of(third, 3)["asked"] > 0
    assert tier_of(third, 3)["found"] == 0
    share(third, 4)  # and layer 3 gets it back
    assert list(mount.glob("blocks/*/*/*.kv"))
    fourth = start_tiered("d", *url)
    misbehave(place, probe="throw")
    assert_found(fourth, told, 3)


FAILING = [
    *(("probe", what) for what in ("throw", "leave", "type", "none", "count", "all", "sleep", "spin")),
    *(("get", what) for what in ("throw", "type", "count", "flip", "short", "large", "too_large")),
    *(("get", what) for what in ("other", "sleep")),
]


def test_tiers_that_misbehave_when_they_are_read(start_tiered: StartTiered, place: Path) -> None:
    """Each time another conversation, that another server was told."""
    plugin = write_tier(place, deadline_ms=300)
    first = start_tiered("a")
    told = [first_turn(first, number) for number in range(len(FAILING))]
    second = start_tiered("b", "--atlas-hook-breaches", "1000", plugin=plugin)
    for one, (method, what) in zip(told, FAILING, strict=True):
        second.wait_until(lambda: tier_of(second, 4)["breaker"] == "closed")
        asked = tier_of(second, 4)["asked"]
        misbehave(place, **{method: what})
        began = time.monotonic()
        answer = one.ask(second, ASK_CITY, atlas={})
        assert time.monotonic() - began < PATIENCE_S, what
        if what != "all":  # then what is there is got all the same
            assert (answer.layer, answer.reused < answer.prompt / 2) == (0, True), (method, what)
        misbehave(place)
        assert answer.text == cold_chat(second, one.messages[:-1]).text, (method, what)
        assert second.post("/v1/atlas/plugins/kept/enable").status_code == 200
        assert tier_of(second, 4)["asked"] >= asked
    found = tier_of(second, 4)
    # the bytes were others than those that were written
    assert found["damaged"] >= 1
    assert found["read"]["failures"] >= 1


@pytest.fixture(scope="session")
def holding_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("library") / "hold_interpreter.so"
    source = Path(__file__).with_name("hold_interpreter.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def test_a_tier_that_holds_the_interpreter(
    start_tiered: StartTiered, place: Path, holding_library: Path
) -> None:
    (place / "hold_interpreter.so").symlink_to(holding_library)
    os.mkfifo(place / "fifo")
    told = first_turn(start_tiered("a"))
    server = start_tiered("b", "--atlas-python-patience-ms", "50", plugin=write_tier(place, deadline_ms=300))
    misbehave(place, probe="hold")
    answer = told.ask(server, ASK_CITY, atlas={})
    assert (place / "entered").exists()
    assert answer.layer == 0
    # the lock is still held
    other = Conversation(2, N_ITEMS)
    assert other.ask(server, atlas={}).layer == 0
    misbehave(place)
    with suppress(OSError):
        os.close(os.open(place / "fifo", os.O_WRONLY | os.O_NONBLOCK))
    assert answer.text == cold_chat(server, told.messages[:-1]).text
    server.wait_until(lambda: tier_of(server, 4)["problem"] is None)
    share(server, 4)


def test_a_tier_that_fails_to_write(start_tiered: StartTiered, place: Path) -> None:
    server = start_tiered("a")
    misbehave(place, put="throw")
    told = Conversation(1, N_ITEMS)
    told.ask(server, atlas={})
    response = server.post("/v1/atlas/memory/flush", {"timeout_s": 60, "layer": 4})
    assert response.status_code == 500
    message = response.json()["error"]["message"]
    assert "plugin 'kept', tier 'files': RuntimeError: a tier is broken" in message
    assert kept(place) == []
    found = tier_of(server, 4)
    assert (found["breaker"], found["written"]["failures"] >= 1) == ("open", True)
    assert found["queue"]["entries"] > 0
    document = server.get("/v1/atlas/status").json()
    assert any("Layer 4 does not work now: plugin 'kept'" in notice for notice in document["notices"])
    assert "layer 4 does not work, and is tried again from time to time" in server.log
    misbehave(place)
    server.post("/v1/atlas/plugins/kept/enable")
    server.wait_until(lambda: tier_of(server, 4)["queue"]["entries"] == 0)
    assert_found(start_tiered("b"), told)


def test_a_tier_is_off_after_deadlines_missed_in_a_row(start_tiered: StartTiered, place: Path) -> None:
    plugin = write_tier(place, deadline_ms=200)
    server = start_tiered("a", "--atlas-hook-breaches", "2", "--atlas-hook-workers", "1", plugin=plugin)
    misbehave(place, put="sleep")
    told = Conversation(1, N_ITEMS)
    told.ask(server, atlas={})
    # it answers probes in time meanwhile
    said = "plugin 'kept' missed its deadline of 200 ms 2 times in a row and is off"
    server.wait_until(lambda: said in server.log)
    server.wait_until(lambda: "is off" in (tier_of(server, 4)["problem"] or ""))
    assert "POST /v1/atlas/plugins/kept/enable turns it on again" in tier_of(server, 4)["problem"]
    document = server.get("/v1/atlas/status").json()
    assert any("plugin 'kept' is off in tier 'files'" in problem for problem in document["problems"])
    assert samples(server)['atlas_hook_off{hook="tier",plugin="kept",tier="files"}'] == 1
    assert kept(place) == []
    assert Conversation(2, N_ITEMS).ask(server, atlas={}).layer == 0

    # the calls that hang come back, and nobody waits for them
    misbehave(place)
    late = 'atlas_hook_late_total{hook="tier",plugin="kept",tier="files"}'
    server.wait_until(lambda: samples(server)[late] >= 2)
    assert tier_of(server, 4)["breaker"] == "open"
    assert server.post("/v1/atlas/plugins/kept/enable").json()["data"] == {"was_off": True}
    while tier_of(server, 4)["queue"]["entries"] > 0:  # late on a busy machine
        server.post("/v1/atlas/plugins/kept/enable")
    assert_found(start_tiered("b"), told)


SHUTDOWN = """
@hookimpl
def shutdown():
    (HERE / "shutdown").touch()
"""


def test_a_plugin_is_loaded_anew(start_tiered: StartTiered, place: Path) -> None:
    """A call that goes on ends with the plugin from before; all else is asked of the new one."""
    plugin = write_tier(place, deadline_ms=LONG_MS, more=SHUTDOWN)
    server = start_tiered("a", plugin=plugin)
    told = first_turn(server)
    n_kept = len(kept(place))
    misbehave(place, put="sleep")
    other = Conversation(2, N_ITEMS)
    other.ask(server, atlas={})
    server.wait_until(lambda: tier_of(server, 4)["queue"]["entries"] > 0)
    for file in kept(place):
        file.unlink()
    source = plugin.read_text().replace('name = "files"', 'name = "newer"')
    plugin.write_text(source.replace('told(method, "sleep")', 'told(method, "doze")'))
    assert server.post("/v1/atlas/plugins/reload").json()["data"]["loaded"] == ["kept"]
    assert tier_of(server, 4)["name"] == "newer"
    assert not (place / "shutdown").exists()
    misbehave(place)  # what hangs in the old one goes on
    server.wait_until((place / "shutdown").exists)
    share(server, 4)
    # what the old one had is sent again once it is used
    before = len(kept(place))
    assert before > 0
    told.ask(server, atlas={})
    share(server, 4)
    assert len(kept(place)) >= before + n_kept
    assert_found(start_tiered("b"), told)

    # and a plugin without a tier takes it away
    plugin.write_text(source.replace("return [Files()]", "return []"))
    assert server.post("/v1/atlas/plugins/reload").status_code == 200
    assert [one["layer"] for one in memory_status(server)["tiers"]] == [1, 2]
    body = {"messages": other.asking(ASK_CITY), "max_tokens": 1, "atlas": {}}
    assert server.post(CHAT, body).json()["atlas"]["layers_used"] == [1, 2]
    response = server.post("/v1/atlas/memory/flush", {"layer": 4})
    assert response.status_code == 400
    assert "there is no layer 4: no plugin has a tier of that number" in response.json()["error"]["message"]
    plugin.write_text(source)
    assert server.post("/v1/atlas/plugins/reload").status_code == 200
    server.wait_until(lambda: tier_of(server, 4)["breaker"] == "closed")
    told.ask(server, ASK_CITY, atlas={})
    share(server, 4)


def test_what_a_plugin_gets_is_encrypted(start_tiered: StartTiered, place: Path, tmp_path: Path) -> None:
    secret = tmp_path / "fleet"
    secret.write_bytes(bytes(range(32)))
    secret.chmod(0o600)
    option = ["--atlas-shared-secret-file", secret]
    told = first_turn(start_tiered("a", *option))
    assert all(file.read_bytes().startswith(b"ATLASEAL") for file in kept(place))
    assert_found(start_tiered("b", *option), told)
    # without the secret its names are not even asked for
    other = start_tiered("c")
    assert told.ask(other, atlas={}).layer == 0
    assert tier_of(other, 4)["found"] == 0


def test_the_end_with_a_tier_that_hangs(start_tiered: StartTiered, place: Path) -> None:
    server = start_tiered("a", "--atlas-shutdown-timeout", "1", plugin=write_tier(place, deadline_ms=LONG_MS))
    misbehave(place, put="sleep")
    Conversation(1, N_ITEMS).ask(server, atlas={})
    server.wait_until(lambda: tier_of(server, 4)["queue"]["entries"] > 0)
    assert server.stop() == 0


def test_many_requests_at_once(start_tiered: StartTiered, place: Path) -> None:
    """Several want the same, and others something else, while the tier fails now and then."""
    first = start_tiered("a")
    told = [first_turn(first, number) for number in range(3)]
    second = start_tiered("b")
    wrong: list[str] = []

    def ask(number: int) -> None:
        mine = Conversation(number % 3, N_ITEMS)
        mine.messages = list(told[number % 3].messages)
        answer = mine.ask(second, ASK_CITY, atlas={})
        if answer.text != cold_chat(second, mine.messages[:-1]).text:
            wrong.append(answer.text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    misbehave(place, get="throw")
    for thread in threads:
        thread.join()
    assert wrong == []
