"""Where every Python thread is: GET /v1/atlas/debug/stacks, and SIGUSR1 for when no route answers."""

import faulthandler
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any

from atlas_plugin.errors import Forbidden
from atlas_plugin.hookspecs import hookimpl
from atlas_plugin.host.host import ServerCall
from atlas_plugin.host.services import Services
from atlas_plugin.http import Request, require_admin
from atlas_plugin.routing import Routes


class DebugPlugin:
    """Tells where Python is, also while it is stuck."""

    def __init__(self, services: Services) -> None:
        self._calls = services.calls

    @hookimpl
    def startup(self) -> None:
        self._calls.answer(ServerCall.STACKS, self._answer)
        # The server takes the signal over; it needs this handler while a thread keeps the interpreter lock.
        if sys.__stderr__ is not None:
            faulthandler.register(signal.SIGUSR1, sys.__stderr__)

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        routes.get(
            "/v1/atlas/debug/stacks",
            summary="Where every Python thread is; for the admin where there are tenants",
            answer="text/plain",
            errors=(Forbidden,),
        )(self._show)

    def _show(self, request: Request) -> str:
        require_admin(request, "see the stacks")
        return stacks()

    def _answer(self, argument: Mapping[str, Any]) -> dict[str, str]:
        return {"stacks": stacks()}


def stacks() -> str:
    """The name and the stack of each thread that is in Python, the innermost call last. Any thread."""
    threads = {thread.ident: thread for thread in threading.enumerate()}
    return "\n".join(
        f"{_title(threads.get(ident), ident)}\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )


def _title(thread: threading.Thread | None, ident: int) -> str:
    # The server's own threads are strangers to threading.
    return f"thread {thread.name if thread else 'of the server'} ({ident:#x}):"
