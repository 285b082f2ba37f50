"""How long sessions may be left unused, as plugins say."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin import IdleSession
from atlas_plugin.memory import expiry
from atlas_plugin.testing import Application, FakeHost
from tests.unit.session_rows import rows, use

Start = Callable[[FakeHost], Application]
Eventually = Callable[[Callable[[], object]], None]
StartWith = Callable[..., tuple[FakeHost, Application]]

ASKED: list[IdleSession] = []
TTLS: dict[str, Any] = {}
BLOCKED, MAY_GO = threading.Event(), threading.Event()
PLUGIN = """
from atlas_plugin import hookimpl
from tests.unit.test_session_ttl import answer


@hookimpl
def session_ttl(session):
    return answer(session)
"""

pytestmark = pytest.mark.usefixtures("hurried")


def answer(session: IdleSession) -> Any:
    ASKED.append(session)
    found = TTLS.get(session.session_id)
    return found() if callable(found) else found


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "ROUND_S", 0.002)
    monkeypatch.setattr(expiry, "_PAUSE_S", 0.002)
    ASKED.clear()
    TTLS.clear()
    BLOCKED.clear()
    MAY_GO.clear()


@pytest.fixture
def start_with(tmp_path: Path, directory: Path, start: Start) -> StartWith:
    """start_with(source, **settings): a host, and an application with the plugin."""

    def started(source: str = PLUGIN, **settings: Any) -> tuple[FakeHost, Application]:
        (tmp_path / "ttl.py").write_text(source)
        host = FakeHost(memory_save_path=str(directory), plugins=[str(tmp_path / "ttl.py")], **settings)
        return host, start(host)

    return started


def rounds() -> int:
    """How often the session asked about most was asked about."""
    names = [session.session_id for session in ASKED]
    return max(map(names.count, names), default=0)


def test_each_session_has_its_own(start_with: StartWith, directory: Path, eventually: Eventually) -> None:
    host, _ = start_with(session_ttl_s=60.0)
    now = time.time()
    TTLS.update({"a": 10, "b": 30.5, "c": 0})
    for name in ("ada/a", "b", "c", "d", "e"):
        use(host, name, last_used=now - 20 if name != "e" else now - 70, pinned=name == "d")
    eventually(lambda: {"b", "e"} <= {session.session_id for session in ASKED})
    eventually(lambda: rows(directory).keys() == {"b", "c", "d"})
    seen = {session.session_id: session for session in ASKED}
    assert seen.keys() == {"a", "b", "c", "e"}
    assert seen["a"].tenant == "ada"
    assert seen["b"].tokens == 300
    assert seen["b"].last_used == pytest.approx(now - 20)
    assert 20 <= seen["b"].idle_s <= 60
    assert seen["b"].created_at >= now
    assert host.live_sessions.keys() == {"b", "c", "d"}


def test_longer_than_the_setting_and_over_a_restart(
    start_with: StartWith, directory: Path, eventually: Eventually
) -> None:
    TTLS.update({"a": 3600, "b": 0, "c": None})
    host, application = start_with(session_ttl_s=5.0)
    for name in ("a", "b", "c"):
        use(host, name, last_used=time.time() - 100)
    eventually(lambda: {"a", "b", "c"} <= {session.session_id for session in ASKED})
    eventually(lambda: rows(directory).keys() == {"a", "b"})
    application.stop()
    ASKED.clear()
    host, _ = start_with(session_ttl_s=5.0)
    eventually(lambda: rounds() >= 3)
    assert host.live_sessions.keys() == rows(directory).keys() == {"a", "b"}


@pytest.mark.parametrize("nonsense", ["soon", True, -1, float("nan"), float("inf"), 1e18, [5]])
def test_nonsense_counts_as_none_and_as_a_failure(
    start_with: StartWith, directory: Path, eventually: Eventually, nonsense: Any
) -> None:
    TTLS.update({"old": nonsense, "young": nonsense})
    host, application = start_with(session_ttl_s=50.0)
    use(host, "old", last_used=time.time() - 100)
    use(host, "young", last_used=time.time() - 10)
    eventually(lambda: "young" in host.live_sessions and rounds() >= 3)
    eventually(lambda: rows(directory).keys() == {"young"})
    assert "plugin 'ttl' fails in session_ttl: " in application.plugins.failing[0]


def test_a_plugin_that_hangs_keeps_old_sessions_and_nothing_else(
    start_with: StartWith, directory: Path, eventually: Eventually
) -> None:
    def hang() -> int:
        BLOCKED.set()
        MAY_GO.wait(20)
        return 1

    TTLS["a"] = hang
    host, _ = start_with(session_ttl_s=5.0)
    use(host, "a", last_used=time.time() - 100)
    assert BLOCKED.wait(20)
    use(host, "b")
    eventually(lambda: rows(directory).keys() == {"a", "b"})
    # Used again while the plugin thinks about how old it is.
    use(host, "a")
    use(host, "c", last_used=time.time() - 100)
    MAY_GO.set()
    eventually(lambda: rows(directory).keys() == host.live_sessions.keys() == {"a", "b"})


def test_all_of_many_are_asked_about(start_with: StartWith, directory: Path, eventually: Eventually) -> None:
    host, _ = start_with(session_ttl_s=0.0)
    for number in range(600):
        TTLS[f"{number}"] = 5 if number % 2 else None
        use(host, f"{number}", last_used=time.time() - 100)
    left = {f"{number}" for number in range(0, 600, 2)}
    eventually(lambda: rows(directory).keys() == host.live_sessions.keys() == left)


def test_without_the_hook_nobody_is_asked(
    start_with: StartWith, directory: Path, eventually: Eventually
) -> None:
    host, _ = start_with(
        "from atlas_plugin import hookimpl\n@hookimpl\ndef shutdown(): pass\n", session_ttl_s=5.0
    )
    use(host, "old", last_used=time.time() - 100)
    use(host, "young")
    eventually(lambda: rows(directory).keys() == {"young"})
    assert [one.name for one in threading.enumerate() if one.name == "atlas-session-ttl"] == []


def test_a_hook_that_is_gone_after_a_reload_is_not_asked(
    start_with: StartWith, tmp_path: Path, directory: Path, eventually: Eventually
) -> None:
    TTLS["a"] = 0
    host, application = start_with(session_ttl_s=5.0)
    use(host, "a", last_used=time.time() - 100)
    eventually(lambda: rounds() >= 3)
    assert rows(directory).keys() == {"a"}
    (tmp_path / "ttl.py").write_text("from atlas_plugin import hookimpl\n@hookimpl\ndef shutdown(): pass\n")
    application.plugins.reload()
    eventually(lambda: rows(directory) == {})
