"""The threads that call hooks on the path of requests, and tiers; the server says when one more is needed."""

import logging
import sys
import threading
from collections.abc import Callable, Mapping

from atlas_plugin import facts, json_text
from atlas_plugin.hookspecs import REQUEST_HOOKS
from atlas_plugin.host.hook_server import HookCall, HookServer
from atlas_plugin.host.request_hooks import HookTable, RequestStates
from atlas_plugin.host.verdicts import Step

log = logging.getLogger("atlas")


_BEGIN = Step(facts.STEP_BEGIN)
# Seconds after which a thread that computes lets another have the interpreter lock. Python's own 5 ms, for
# each of some hooks that spin, would be most of the others' deadlines.
_SWITCH_INTERVAL_S = 0.0005


class CallWorkers:
    """Makes a worker of a queue, a number of ATLAS_QUEUE_…, each time that the server wants one.

    Workers hand each call to `serve`. Threads are named by `name`.
    """

    def __init__(self, server: HookServer, queue: int, name: str, serve: Callable[[HookCall], None]) -> None:
        self._server = server
        self._queue = queue
        self._name = name
        self._serve = serve

    def start(self) -> None:
        """Begin, once; it ends with the server."""
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL_S))
        threading.Thread(target=self._make, name=f"atlas-{self._name}s", daemon=True).start()

    def _make(self) -> None:
        has_failed = False
        while self._server.hook_worker_wanted(self._queue, has_failed):
            try:
                threading.Thread(target=self._work, name=f"atlas-{self._name}-worker", daemon=True).start()
                has_failed = False
            except BaseException:
                log.exception("no thread could be made to call %ss; trying again in a second", self._name)
                has_failed = True

    def _work(self) -> None:
        call = self._server.take_hook_call(self._queue, 0)
        while call is not None:
            try:
                self._serve(call)
            except BaseException:
                log.exception("the call of a %s failed", self._name)
            call = self._server.take_hook_call(self._queue, call.number)


class HookCalls:
    """Serves calls of hooks on the path of requests. `tables` are by number. Any thread."""

    def __init__(self, server: HookServer, tables: Mapping[int, HookTable]) -> None:
        self._server = server
        self._tables = tables
        self._states = RequestStates()

    def serve(self, call: HookCall) -> None:
        """Ask the implementations, one after the other, for as long as the server wants."""
        queue = facts.QUEUE_REQUESTS
        position = self._server.hook_step(queue, call.number, _BEGIN)
        hook, body = REQUEST_HOOKS[call.hook], call.body
        is_only = False
        if position >= 0:
            table = self._tables[call.table]
            is_only = not table.keeps_state
            about = self._states.about(hook, call.request, json_text.decode(call.head))
        while position >= 0:
            step = table.run(hook, position, about, body)
            if step.number == facts.STEP_MODIFY and step.response is not None:
                body = step.response.body
            position = self._server.hook_step(queue, call.number, step)
        self._states.end(hook, call.request, is_only)
