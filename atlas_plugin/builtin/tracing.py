"""A trace of each request, where OpenTelemetry's variables name a collector."""

import logging
import os
import sys
from typing import TYPE_CHECKING

from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host.host import Host
from atlas_plugin.metrics.families import Family, Sample
from atlas_plugin.tracing.environment import endpoint_variable, protocol_problem

if TYPE_CHECKING:
    from atlas_plugin.tracing.follower import Follower

log = logging.getLogger("atlas")


class TracingPlugin:
    """Sends traces by OTLP; without a collector it imports nothing of OpenTelemetry."""

    def __init__(self) -> None:
        self._follower: Follower | None = None
        self._problem = ""

    @hookimpl
    def startup(self, host: Host) -> None:
        self._host = host
        variable = endpoint_variable(os.environ)
        if variable is None:
            return
        try:
            self._follower = _follower(host)
        except (ImportError, ValueError) as error:
            self._problem = f"there are no traces although {variable} is set: {error}"
            log.warning("%s", self._problem)
            return
        self._follower.start()
        log.info("traces go to the collector of %s", variable)

    @hookimpl
    def report_status(self) -> StatusReport | None:
        follower = self._follower
        if follower is None:
            return StatusReport(problems=[self._problem]) if self._problem else None
        problem = follower.problem
        return StatusReport(
            data={
                "tracing": {
                    "sent": follower.sent,
                    "missed": follower.missed,
                    "undelivered": follower.undelivered,
                }
            },
            problems=[f"traces are not delivered: {problem}"] if problem else (),
        )

    @hookimpl
    def shutdown(self) -> None:
        if self._follower is not None:
            # Other plugins and calls may have used up as much.
            self._follower.stop(self._host.settings().number("shutdown_timeout_s") / 2)

    @hookimpl
    def report_metrics(self) -> list[Family]:
        follower = self._follower
        missed, undelivered = (follower.missed, follower.undelivered) if follower else (0, 0)
        return [
            Family(
                "atlas_traces_lost_total",
                "counter",
                "Traces of requests that no collector got.",
                [
                    Sample({"reason": "missed"}, missed),
                    Sample({"reason": "undelivered"}, undelivered),
                ],
            )
        ]


def _follower(host: Host) -> "Follower":
    if problem := protocol_problem(os.environ):
        raise ValueError(problem)
    try:
        # Imported here, as hardly any server needs it, and it takes longer than all the rest.
        from atlas_plugin.tracing.follower import Follower
    except ImportError as error:
        raise ImportError(
            f"{error}; install the extra 'tracing' into {sys.prefix}: "
            "bin/python -m pip install '.[tracing]', in the source tree of ATLAS"
        ) from None
    return Follower(host)
