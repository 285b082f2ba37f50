"""Work that goes on beside the requests, on a thread of its own."""

import logging
import threading
from collections.abc import Callable

from atlas_plugin.errors import AtlasError

log = logging.getLogger("atlas")

RETRY_S = 1.0
"""How long to wait after a failure."""
_JOIN_S = 1.0


class Worker:
    """Calls `work` again and again on a daemon thread; it returns after how many seconds to call it next.

    When it raises, that is counted, logged the first time in a row, and it is called again after RETRY_S.
    """

    def __init__(self, name: str, work: Callable[[], float]) -> None:
        self.name = name
        self.failures = 0
        self.problem: str | None = None
        """Why the last call failed; None when it did not."""
        self._work = work
        self._stopping = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    def wake(self) -> None:
        """Have the next call made at once."""
        self._woken.set()

    def stop(self) -> bool:
        """Make no further call; whether a running one ended within a second."""
        self._stopping = True
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            try:
                delay_s = self._work()
                self.problem = None
            except BaseException as error:
                self.failures += 1
                delay_s = RETRY_S
                if self.problem is None:
                    # An AtlasError says all there is to say.
                    log.error("%s: %s", self.name, error, exc_info=not isinstance(error, AtlasError))
                self.problem = f"{error}" or type(error).__name__
            self._woken.wait(delay_s)
            self._woken.clear()
