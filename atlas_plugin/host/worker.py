"""Work that goes on beside the requests, on a thread of its own."""

import logging
import random
import threading
from collections.abc import Callable

from atlas_plugin.errors import AtlasError

log = logging.getLogger("atlas")

RETRY_S = 1.0
"""How long to wait after the first failure, at least."""
MAX_RETRY_S = 30.0
_JOIN_S = 1.0


class Worker:
    """Calls `work` again and again on a daemon thread; it returns after how many seconds to call it next.

    When it raises, that is counted, logged the first time in a row, and it is called again after RETRY_S or
    more: doubled each time up to MAX_RETRY_S, with jitter of RETRY_S.
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
        failed = 0
        while not self._stopping:
            try:
                delay_s = self._work()
            except BaseException as error:
                self._note(error)
                delay_s = min(RETRY_S * 2 ** min(failed, 32), MAX_RETRY_S) + random.uniform(0, RETRY_S)
                failed += 1
            else:
                failed, self.problem = 0, None
            self._sleep(delay_s)

    def _note(self, error: BaseException) -> None:
        self.failures += 1
        if self.problem is None:
            # An AtlasError says all there is to say.
            log.error("%s: %s", self.name, error, exc_info=None if isinstance(error, AtlasError) else error)
        self.problem = f"{error}" or type(error).__name__

    def _sleep(self, seconds: float) -> None:
        if not self._stopping:
            self._woken.wait(seconds)
            self._woken.clear()
