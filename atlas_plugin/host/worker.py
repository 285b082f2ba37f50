"""Work that goes on beside the requests, on a thread of its own."""

import logging
import threading
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random

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
        retrying = Retrying(
            retry=retry_if_exception_type(BaseException),
            wait=wait_exponential(RETRY_S, MAX_RETRY_S) + wait_random(0, RETRY_S),
            before_sleep=self._note,
            sleep=self._sleep,
            stop=lambda state: self._stopping,
            retry_error_callback=lambda state: 0.0,
        )
        while not self._stopping:
            delay_s = retrying(self._work)
            self.problem = None
            self._sleep(delay_s)

    def _note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        self.failures += 1
        if self.problem is None:
            # An AtlasError says all there is to say.
            log.error("%s: %s", self.name, error, exc_info=None if isinstance(error, AtlasError) else error)
        self.problem = f"{error}" or type(error).__name__

    def _sleep(self, seconds: float) -> None:
        if not self._stopping:
            self._woken.wait(seconds)
            self._woken.clear()
