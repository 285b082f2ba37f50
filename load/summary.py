"""What a run of Locust came to, as one document and as text."""

from typing import Any

from locust import stats
from locust.stats import RequestStats, StatsEntry

from load.profiles.answers import REFUSALS
from load.profiles.user import EXTRA_TYPES, FIRST_TOKEN, INTER_TOKEN

PERCENTILES = {"p50": 0.5, "p99": 0.99}


def keep_precision() -> None:
    """Have Locust keep times to three digits: it rounds to whole ms, which are more than some tokens take."""
    stats.bucket_response_time = lambda ms: float(f"{ms:.3g}")  # type: ignore[assignment,return-value]


def summarize(statistics: RequestStats) -> dict[str, Any]:
    """Counts, and times in ms. Requests are what HTTP answered, without those refused for now."""
    total = statistics.total
    entries = [entry for _, entry in sorted(statistics.entries.items())]
    seconds = (total.last_request_timestamp or total.start_time) - total.start_time
    return {
        "seconds": round(seconds, 3),
        "requests": total.num_requests,
        "requests_per_s": round(total.num_requests / seconds, 2) if seconds > 0 else 0.0,
        "failures": total.num_failures,
        "refusals": {
            str(status): sum(entry.num_requests for entry in entries if entry.method == str(status))
            for status in REFUSALS
        },
        "latency_ms": _percentiles(total),
        "ttft_ms": _percentiles(_together(statistics, entries, FIRST_TOKEN)),
        "inter_token_ms": _percentiles(_together(statistics, entries, INTER_TOKEN)),
        "entries": [
            {
                "type": entry.method,
                "name": entry.name,
                "count": entry.num_requests,
                "failures": entry.num_failures,
                **_percentiles(entry),
            }
            for entry in entries
        ],
        "errors": [
            {
                "type": error.method,
                "name": error.name,
                "error": error.parse_error(error.error),
                "count": error.occurrences,
            }
            for error in statistics.errors.values()
        ],
    }


def render(summary: dict[str, Any]) -> str:
    """The summary as lines of text."""
    refusals = ", ".join(f"{count} x {status}" for status, count in summary["refusals"].items())
    lines = [
        f"{summary['profile']}, {summary['users']} users, seed {summary['seed']}, {summary['server']}: "
        f"{summary['requests']} requests in {summary['seconds']:.1f} s, {summary['requests_per_s']}/s, "
        f"{summary['failures']} failures, refused for a while: {refusals}",
        f"{'ms':36} {'count':>8} {'failures':>8} {'p50':>9} {'p99':>9}",
    ]
    lines += [
        f"{entry['type']:5}{entry['name']:31} {entry['count']:8} {entry['failures']:8} "
        f"{_number(entry['p50'])} {_number(entry['p99'])}"
        for entry in sorted(summary["entries"], key=lambda entry: entry["type"] in EXTRA_TYPES)
    ]
    for title, key in (("latency", "latency_ms"), ("TTFT", "ttft_ms"), ("inter-token", "inter_token_ms")):
        lines.append(f"all: {title:49} {_number(summary[key]['p50'])} {_number(summary[key]['p99'])}")
    lines += [f"FAILED {e['count']} x {e['type']} {e['name']}: {e['error']}" for e in summary["errors"]]
    return "\n".join(lines)


def _together(statistics: RequestStats, entries: list[StatsEntry], kind: str) -> StatsEntry:
    together = StatsEntry(statistics, kind, kind)
    for entry in entries:
        if entry.method == kind:
            together.extend(entry)
    return together


def _percentiles(entry: StatsEntry) -> dict[str, float | None]:
    return {
        name: entry.get_response_time_percentile(share) if entry.num_requests else None
        for name, share in PERCENTILES.items()
    }


def _number(value: float | None) -> str:
    return f"{'-' if value is None else format(value, ',.1f'):>9}"
