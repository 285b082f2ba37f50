"""What a policy learned outlives restarts, damage and disks that fail."""

import stat
import sys
from pathlib import Path

import pytest

from atlas_plugin.builtin import eviction
from atlas_plugin.eviction import LayerPolicy
from atlas_plugin.eviction.survival import PERIOD
from atlas_plugin.storage.memory_records import MemoryEvents
from atlas_plugin.testing import FakeHost
from tests.unit.eviction.loads import chain
from tests.unit.eviction_plugin.driving import (
    BATCH,
    Call,
    Eventually,
    HostWith,
    Start,
    known_entries,
    order_of,
    status_of,
)

ROOT = "ab" * 32

# Enough for a policy to learn from, in two batches.
LESSONS = [MemoryEvents(tuple(chain(range(PERIOD), 1))), MemoryEvents(tuple(chain([1, 2], PERIOD + 10)))]


def learn(host: FakeHost, start: Start, eventually: Eventually) -> None:
    application = start(host)
    host.events += LESSONS
    eventually(lambda: len(host.orders[2]) == 2)
    application.stop()


def test_it_outlives_a_restart(
    host_with: HostWith,
    tmp_path: Path,
    start: Start,
    call: Call,
    eventually: Eventually,
) -> None:
    learn(host_with(), start, eventually)
    directory = tmp_path / "memory" / "policy" / ROOT
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {"layer1.state": 0o600, "layer2.state": 0o600}
    written = {path: path.stat().st_ino for path in directory.iterdir()}
    application = start(host_with())
    eventually(lambda: known_entries(application, call) == 2 * PERIOD)
    application.stop()
    assert {path: path.stat().st_ino for path in directory.iterdir()} == written, "nothing had changed"


def test_each_model_has_its_own(
    host_with: HostWith, tmp_path: Path, start: Start, call: Call, eventually: Eventually
) -> None:
    """No server writes over what another learned; a new one begins with what is there."""
    directory = tmp_path / "memory" / "policy"
    learn(host_with(), start, eventually)
    before = {path: path.read_bytes() for path in (directory / ROOT).iterdir()}
    other = host_with()
    assert other.memory_status is not None
    other.memory_status["root"] = "cd" * 32
    application = start(other)
    eventually(lambda: known_entries(application, call) == 2 * PERIOD)
    other.events.append(BATCH)
    eventually(lambda: other.orders[2])
    application.stop()
    assert sorted(path.name for path in (directory / ("cd" * 32)).iterdir()) == [
        "layer1.state",
        "layer2.state",
    ]
    assert {path: path.read_bytes() for path in before} == before


def test_what_was_learned_before_models_were_told_apart(
    host_with: HostWith, tmp_path: Path, start: Start, call: Call, eventually: Eventually
) -> None:
    learn(host_with(), start, eventually)
    directory = tmp_path / "memory" / "policy"
    for path in (directory / ROOT).iterdir():
        path.rename(directory / path.name)
    for number in range(20):
        (directory / f"{number}").mkdir()
    application = start(host_with())
    eventually(lambda: known_entries(application, call) == 2 * PERIOD)
    assert len(list(directory.iterdir())) == 16, "and so many models are remembered"


def test_damage_is_moved_aside(
    host_with: HostWith,
    tmp_path: Path,
    start: Start,
    call: Call,
    eventually: Eventually,
) -> None:
    learn(host_with(), start, eventually)
    path = tmp_path / "memory" / "policy" / ROOT / "layer1.state"
    damaged = path.read_bytes()[:-1] + b"\xff"
    path.write_bytes(damaged)
    host = host_with()
    application = start(host)
    eventually(lambda: known_entries(application, call) == PERIOD)
    assert f"{path}: the state is damaged: its checksum is wrong; it is moved to" in host.log_text
    assert path.with_suffix(".damaged").read_bytes() == damaged
    assert not path.exists()
    host.events += LESSONS
    eventually(lambda: len(host.orders[1]) == 2)
    application.stop()
    LayerPolicy(1).load(path.read_bytes())


def test_a_state_that_the_policy_stumbles_over(
    host_with: HostWith, tmp_path: Path, start: Start, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(policy: LayerPolicy, data: bytes) -> None:
        policy.capacity = 0
        raise ArithmeticError("odd numbers")

    learn(host_with(), start, eventually)
    monkeypatch.setattr(LayerPolicy, "load", fail)
    host = host_with()
    start(host)
    host.events.append(BATCH)
    eventually(lambda: host.orders[2])
    assert host.orders[1] == [order_of(BATCH.touches)]
    assert "layer2.state: odd numbers; it is moved to" in host.log_text


def test_a_file_that_cannot_be_read(
    host_with: HostWith, tmp_path: Path, start: Start, eventually: Eventually
) -> None:
    (tmp_path / "memory" / "policy" / ROOT / "layer1.state").mkdir(parents=True)
    host = host_with()
    start(host)
    host.events.append(BATCH)
    eventually(lambda: host.orders[1])
    assert "cannot read what eviction learned, and begin anew: " in host.log_text


def test_it_is_saved_now_and_then(
    host_with: HostWith,
    tmp_path: Path,
    start: Start,
    call: Call,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(eviction, "SAVE_S", 0.0)
    directory = tmp_path / "memory" / "policy" / ROOT
    directory.parent.mkdir(mode=0o700, parents=True)
    directory.touch()
    host = host_with()
    application = start(host)
    host.events.append(BATCH)
    eventually(lambda: status_of(application, call)["problems"])
    [problem] = status_of(application, call)["problems"]
    assert problem.startswith("Failed to save what eviction learned: ")
    assert problem.endswith(f"check the disk space and permissions of {directory}")
    assert host.orders[1] == [order_of(BATCH.touches)]
    directory.unlink()
    eventually(lambda: status_of(application, call)["status"] == "healthy")
    assert host.log_text.count("Failed to save") == 1
    assert len(list(directory.iterdir())) == 2


def test_a_slow_plugin_does_not_hold_the_shutdown(
    host_with: HostWith, start: Start, eventually: Eventually
) -> None:
    host = host_with(
        """
        import threading
        entered, leave = threading.Event(), threading.Event()

        @hookimpl
        def evict_order():
            entered.set()
            leave.wait()
        """
    )
    application = start(host)
    module = sys.modules["atlas_user_plugin_p0"]
    host.events.append(BATCH)
    module.entered.wait()
    application.stop()
    assert "a plugin is slow in evict_order or admit" in host.log_text
    module.leave.set()
