"""What plugins may answer when a hook asks them. Pure: any thread."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from atlas_plugin import facts
from atlas_plugin.eviction.records import PRIORITY_LIMIT
from atlas_plugin.hookspecs import StatusReport
from atlas_plugin.metrics.families import Family, check_families

MAX_SESSION_TTL_S = next(row["max"] for row in facts.SETTINGS if row["name"] == "session_ttl_s")

Check = Callable[[Any, Mapping[str, Any]], Any]


def _status_report(answer: Any, arguments: Mapping[str, Any]) -> StatusReport:
    if not isinstance(answer, StatusReport):
        raise TypeError(f"report_status returned {type(answer).__name__}, not StatusReport or None")
    return answer


def _families(answer: Any, arguments: Mapping[str, Any]) -> list[Family]:
    return check_families(answer)


def _order(order: Any, arguments: Mapping[str, Any]) -> Sequence[int]:
    count = len(arguments["touches"])
    if not isinstance(order, Sequence):
        raise TypeError(f"evict_order returned {type(order).__name__}, not a sequence of int or None")
    if len(order) != count:
        raise ValueError(f"evict_order returned {len(order)} priorities for {count} touches")
    for priority in order:
        if type(priority) is not int:
            raise TypeError(f"evict_order returned the priority {priority!r}, which is not an int")
        if not -PRIORITY_LIMIT < priority < PRIORITY_LIMIT:
            raise ValueError(f"evict_order returned the priority {priority}, which has more than 62 bits")
    return order


def _admission(answer: Any, arguments: Mapping[str, Any]) -> bool:
    if not isinstance(answer, bool):
        raise TypeError(f"admit returned {type(answer).__name__}, not bool or None")
    return answer


def _ttl(answer: Any, arguments: Mapping[str, Any]) -> float:
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise TypeError(f"session_ttl returned {type(answer).__name__}, not seconds or None")
    if not 0 <= answer <= MAX_SESSION_TTL_S:
        raise ValueError(f"session_ttl returned {answer}, not from 0 to {MAX_SESSION_TTL_S} seconds")
    return float(answer)


CHECKS: Mapping[str, Check] = {
    "report_status": _status_report,
    "report_metrics": _families,
    "evict_order": _order,
    "admit": _admission,
    "session_ttl": _ttl,
}
"""By hook: gives an answer that is not None, or raises; with the arguments that the hook was asked with."""
