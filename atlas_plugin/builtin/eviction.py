"""Takes what happened in the memory: asks `evict_order` and `admit` what to keep, and has plugins told.

Its own answer comes last.
"""

import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from atlas_plugin import facts
from atlas_plugin.errors import ServerError
from atlas_plugin.eviction import Eviction, LayerPolicy, Touch
from atlas_plugin.eviction.records import PRIORITY_LIMIT
from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host.services import Services
from atlas_plugin.host.worker import Worker
from atlas_plugin.memory.teller import Teller
from atlas_plugin.storage import private_files
from atlas_plugin.storage.memory_records import MemoryEvents
from atlas_plugin.storage.sealing import Sealing

log = logging.getLogger("atlas")

POLL_S = 0.2
WAIT_FOR_MEMORY_S = 1.0
SAVE_S = 60.0

# Below that of entries from before the server's start; among themselves in the order of touches.
_NOT_ADMITTED = 1 - PRIORITY_LIMIT
_MAX_MODELS = 16
"""Of how many models the state is kept, some megabytes each; another context size makes another."""
_LAYERS = {1: "ram", 2: "disk"}


class EvictionPlugin:
    """One policy for each layer that has a budget, used by one thread."""

    def __init__(self, services: Services) -> None:
        self._host = services.host
        self._plugins = services.plugins
        self._worker: Worker | None = None
        self._parent = self._directory = Path()
        self._policies: dict[int, LayerPolicy] = {}
        self._is_programs = False
        self._sealing = Sealing()
        self._teller = Teller(services.host, lambda: services.plugins.hooks)
        self._batches = self._events = self._late = 0
        self._seconds = 0.0
        self._changed = False
        self._is_first = True
        self._saved_at = time.monotonic()
        self._save_problem: str | None = None

    @hookimpl
    def startup(self) -> None:
        status = self._host.status()
        if status["in_effect"]["conversations_off"]:
            return
        if "memory_policy" in status:
            # The program has a policy of its own. Events can be taken once only.
            self._is_programs = True
            self._teller.start()
            return
        self._sealing = Sealing(self._host if status["in_effect"]["encrypted"] else None)
        self._parent = Path(self._host.settings().text("memory_save_path")) / "policy"
        self._worker = Worker("atlas-eviction", self._work)
        self._worker.start()

    @hookimpl(trylast=True)
    def evict_order(
        self, layer: int, touches: Sequence[Touch], evictions: Sequence[Eviction]
    ) -> list[int] | None:
        policy = self._policies.get(layer)
        if policy is None:
            return None
        priorities = policy.touch(touches)
        policy.evicted(evictions)
        return priorities

    @hookimpl
    def report_status(self) -> StatusReport | None:
        if self._is_programs:
            return self._report_of_programs()
        worker = self._worker
        if worker is None:
            return None
        problems = []
        if worker.problem is not None:
            problems.append(f"the order of eviction is not learned: {worker.problem}")
        if news_problem := self._news_problem():
            problems.append(news_problem)
        if self._save_problem is not None:
            problems.append(self._save_problem)
        facts: dict[str, Any] = {
            "decided_by": "plugins",
            "layers": sorted(self._policies),
            "batches": self._batches,
            "events": self._events,
            "late": self._late,
            "untold": self._teller.untold,
            "seconds": round(self._seconds, 3),
            "failures": worker.failures,
            "known_entries": sum(len(policy.directory) for policy in self._policies.values()),
        }
        return StatusReport({"memory_policy": facts}, problems)

    def _report_of_programs(self) -> StatusReport:
        """The problems only: the facts are the server's own."""
        problem = self._host.status()["memory_policy"]["problem"]
        fails = f"the program's memory policy fails: {problem}" if problem else None
        return StatusReport({}, [text for text in (fails, self._news_problem()) if text])

    def _news_problem(self) -> str | None:
        problem = self._teller.problem
        return problem and f"plugins are not told what the memory does: {problem}"

    @hookimpl
    def shutdown(self) -> None:
        self._teller.stop()
        if self._worker is None:
            return
        if self._worker.stop():
            self._save()
        else:
            log.warning("a plugin is slow in evict_order or admit: what eviction learned last is not saved")

    def _work(self) -> float:
        self._teller.begin(is_start=self._is_first)
        self._is_first = False
        if not self._policies:
            self._policies = self._find_layers()
            if not self._policies:
                return POLL_S if self._teller.wants_saved else WAIT_FOR_MEMORY_S
        began = time.perf_counter()
        events = self._host.memory_events(with_saved=self._teller.wants_saved)
        self._teller.add(events.saved)
        full = events.total >= facts.MAX_EVENTS
        if events.total:
            self._batches += 1
            self._events += events.total
            self._late += full
            for layer in self._policies if events.touches or events.evictions else ():
                self._changed = True
                self._order(layer, events)
            self._seconds += time.perf_counter() - began
        if time.monotonic() >= self._saved_at + SAVE_S:
            self._save()
        return 0.0 if full else POLL_S

    def _order(self, layer: int, events: MemoryEvents) -> None:
        touches, evictions = events.touches, events.evictions.get(layer, ())
        order = self._plugins.hooks.ask.evict_order(layer=layer, touches=touches, evictions=evictions)
        # Without an answer, the server's own order holds.
        if order:
            self._host.set_priorities(layer, self._admit(layer, touches, order))

    def _admit(self, layer: int, touches: Sequence[Touch], order: Sequence[int]) -> Sequence[int]:
        if not self._plugins.hooks.implements("admit"):
            return order
        return [
            _NOT_ADMITTED + touch.now
            if self._plugins.hooks.ask.admit(layer=layer, touch=touch) is False
            else priority
            for touch, priority in zip(touches, order, strict=True)
        ]

    def _find_layers(self) -> dict[int, LayerPolicy]:
        """A policy for each layer with a budget; none until plugins are up, and the memory knows its root."""
        if not self._plugins.hooks.implements("evict_order"):
            return {}
        memory = self._host.status().get("memory") or {}
        if not memory.get("root"):
            return {}
        # Servers of several models may share the path, and each learns about its own entries.
        self._directory = self._parent / str(memory["root"])
        policies = {}
        for layer, name in _LAYERS.items():
            if budget := memory.get(name, {}).get("budget"):
                policies[layer] = _restored(self._find_state(layer), budget, self._sealing)
        with suppress(OSError):
            private_files.remove_abandoned(self._directory)
            _remove_oldest(self._parent)
            _seal_all(self._parent, self._sealing)
        return policies

    def _find_state(self, layer: int) -> Path:
        """What was learned of this model, or else last of another: most of it is about people, not models."""
        own = self._path(layer)
        if own.exists():
            return own
        others = [*self._parent.glob(own.name), *self._parent.glob(f"*/{own.name}")]
        return max(others, key=lambda path: path.stat().st_mtime, default=own)

    def _path(self, layer: int) -> Path:
        return self._directory / f"layer{layer}.state"

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if not self._changed:
            return
        try:
            if not self._directory.is_dir():
                for directory in (self._parent.parent, self._parent, self._directory):
                    private_files.make_directory(directory)
            for layer, policy in self._policies.items():
                path = self._path(layer)
                private_files.replace(path, self._sealing.close(_name_of(path), policy.dump()))
        except (OSError, ServerError) as error:
            where = f"check the disk space and permissions of {self._directory}"
            problem = f"Failed to save what eviction learned: {error}; {where}"
            if self._save_problem is None:
                log.error("%s", problem)
            self._save_problem = problem
        else:
            self._changed, self._save_problem = False, None


def _remove_oldest(parent: Path) -> None:
    """Forget models that nobody used for long, and what was learned before they were told apart."""
    directories = [path for path in parent.iterdir() if path.is_dir()]
    directories.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for directory in directories[_MAX_MODELS:]:
        shutil.rmtree(directory, ignore_errors=True)
    for path in parent.glob("*.state"):
        path.unlink()


def _name_of(path: Path) -> str:
    return f"policy/{path.parent.name}/{path.name}"


def _seal_all(parent: Path, sealing: Sealing) -> None:
    """Encrypt what was learned of all models, where that is from before it was switched on."""
    for path in parent.glob("*/*.state") if sealing.is_on else ():
        if not sealing.is_sealed(data := path.read_bytes()):
            private_files.replace(path, sealing.close(_name_of(path), data))


def _restored(path: Path, budget: int, sealing: Sealing) -> LayerPolicy:
    policy = LayerPolicy(budget)
    try:
        policy.load(sealing.open(_name_of(path), path.read_bytes()))
    except FileNotFoundError:
        return policy
    except OSError as error:
        log.warning("cannot read what eviction learned, and begin anew: %s", error)
    except Exception as error:  # a file that is always stumbled over would end learning for good
        aside = path.with_suffix(".damaged")
        log.warning("%s: %s; it is moved to %s, and learning begins anew", path, error, aside)
        with suppress(OSError):
            path.replace(aside)
    else:
        return policy
    return LayerPolicy(budget)
