"""The figures of a run, as tables and charts."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from load.benchmark.servers import (
    ASIDE,
    CASES,
    CLIENT_CPU,
    OVERHEAD,
    PLAIN,
    STOCK,
    STOCK_AGAIN,
    Samples,
)
from load.estimates import Estimate, estimate_median, estimate_ratio, is_different, noise_factor
from load.report import Chart, Table

START_UP_BUDGET_MS = 300
RESIDENT_BUDGET_MIB = 64
# Where the load generator is busier, it is what limits the requests in a second.
BUSY_CLIENT = 0.8

# Fewer rounds tell no difference from chance: their interval is little more than their range.
ENOUGH_ROUNDS = 5

_NOTE = (
    "Medians of {rounds} rounds; for the others the ratio to {base}, round by round, with its 95 % interval. "
    "The noise is how far {same} may be from itself. "
)
_DIFFERENT = "What lies wholly beyond it is different, and bold."
_TOO_FEW = f"Fewer than {ENOUGH_ROUNDS} rounds cannot tell what is different."


def noise_of(samples: Samples, figure: str) -> float:
    """How far a figure of two servers that are the same may differ here, as a factor."""
    return noise_factor(estimate_ratio(samples[STOCK_AGAIN][figure], samples[STOCK][figure]))


def ratio_of(samples: Samples, case: str, base: str, figure: str) -> Estimate:
    """A figure of a case to that of another one."""
    return estimate_ratio(samples[case][figure], samples[base][figure])


def comparison_tables(samples: Samples) -> list[Table]:
    """A table for each case that others are compared with, and what has nothing to be compared with."""
    bases = dict.fromkeys(case.against for case in CASES)
    return [_comparison(samples, base) for base in bases] + [_overhead(samples), _budgets(samples)]


def _comparison(samples: Samples, base: str) -> Table:
    compared = [case.name for case in CASES if case.against == base and case.name not in (base, STOCK_AGAIN)]
    rounds = len(samples[base]["start-up, ms"])
    enough = rounds >= ENOUGH_ROUNDS
    rows = []
    for figure in samples[base]:
        if figure in ASIDE:
            continue
        noise = noise_of(samples, figure)
        cells = []
        for name in compared:
            ratio = ratio_of(samples, name, base, figure)
            text = f"{ratio.value:.3f}x ({ratio.low:.3f} to {ratio.high:.3f})"
            cells.append(f"**{text}**" if enough and is_different(ratio, noise) else text)
        median = statistics.median(samples[base][figure])
        rows.append([figure, f"{median:,.2f}", f"{1 / noise:.3f} to {noise:.3f}", *cells])
    note = _NOTE.format(rounds=rounds, base=base, same=STOCK) + (_DIFFERENT if enough else _TOO_FEW)
    return Table(f"Compared with {base}", note, ["figure", base, "noise", *compared], rows)


def _overhead(samples: Samples) -> Table:
    rows = []
    for case, figures in samples.items():
        if figures.keys() >= OVERHEAD.keys():
            rows.append([case, *(_spread(estimate_median(figures[name]), 3) for name in OVERHEAD)])
    note = "What the server says it added to a request with nothing to restore, 1 client, ms."
    return Table("Time in ATLAS", note, ["server", *OVERHEAD], rows)


def _budgets(samples: Samples) -> Table:
    rows = []
    for figure, budget in (
        ("start-up, ms", START_UP_BUDGET_MS),
        ("resident at first, MiB", RESIDENT_BUDGET_MIB),
    ):
        added = [a - b for a, b in zip(samples[PLAIN][figure], samples[STOCK][figure], strict=True)]
        rows.append([figure, _spread(estimate_median(added), 1), str(budget)])
    busiest = max(max(figures[CLIENT_CPU]) for figures in samples.values())
    note = f"The load generator took {busiest:.0%} of a core at most"
    note += "; it limited the requests in a second." if busiest > BUSY_CLIENT else "."
    return Table("Added by ATLAS", note, ["figure", "added", "budget"], rows)


def _spread(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:,.{digits}f} ({estimate.low:,.{digits}f} to {estimate.high:,.{digits}f})"


def comparison_chart(samples: Samples) -> Chart:
    """Ratios with their intervals over the noise, a panel for each case."""
    rows = []
    enough = len(samples[STOCK]["start-up, ms"]) >= ENOUGH_ROUNDS
    for case in CASES:
        if case.name in (STOCK, STOCK_AGAIN):
            continue
        for figure in samples[case.against]:
            if figure in ASIDE:
                continue
            ratio, noise = ratio_of(samples, case.name, case.against, figure), noise_of(samples, figure)
            panel = f"{case.name} to {case.against}".replace("`", "")
            rows.append(
                {"case": panel, "figure": figure, "noise_low": 1 / noise, "noise_high": noise}
                | {"differs": enough and is_different(ratio, noise)}
                | ratio._asdict()
            )
    y = {"field": "figure", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 250}}
    scale = {"type": "log", "domain": [0.5, 2], "clamp": True}

    def x(field: str) -> dict[str, Any]:
        return {"field": field, "type": "quantitative", "scale": scale, "title": "ratio"}

    noise_band = {
        "mark": {"type": "bar", "height": 12, "color": "#ddd"},
        "encoding": {"y": y, "x": x("noise_low"), "x2": {"field": "noise_high"}},
    }
    colour = {"field": "differs", "scale": {"domain": [False, True], "range": ["#555", "#d55e00"]}}
    interval = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {"y": y, "x": x("low"), "x2": {"field": "high"}, "color": colour},
    }
    point = {
        "mark": {"type": "point", "filled": True},
        "encoding": {"y": y, "x": x("value"), "color": colour},
    }
    return Chart(
        {
            "data": {"values": rows},
            "facet": {"field": "case", "title": None, "sort": None},
            "columns": 2,
            "spec": {"width": 300, "layer": [noise_band, interval, point]},
        }
    )


def gaps_chart(samples: Mapping[str, Sequence[float]]) -> Chart:
    """The gaps between tokens by what happened beside, each a tick."""
    rows = [{"case": case, "gap, ms": gap} for case, gaps in samples.items() for gap in gaps]
    return Chart(
        {
            "data": {"values": rows},
            "width": 600,
            "mark": {"type": "tick", "opacity": 0.4},
            "encoding": {
                "x": {"field": "gap, ms", "type": "quantitative", "scale": {"zero": False}},
                "y": {"field": "case", "type": "nominal", "sort": None, "title": None},
            },
        }
    )


def hit_rate_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """The part of a trace's prefix blocks that each policy had, by capacity."""
    policies = list(dict.fromkeys(result["policy"] for result in results))
    rates = {(result["capacity"], result["policy"]): result["prefix_rate"] for result in results}
    rows = [
        [f"{capacity:,}", *(f"{rates[capacity, policy]:.4f}" for policy in policies)]
        for capacity in dict.fromkeys(result["capacity"] for result in results)
    ]
    note = f"{results[0]['requests']:,} requests with {results[0]['blocks']:,} blocks, by `atlas simulate`."
    return Table("Prefix hit rates on a trace", note, ["capacity in blocks", *policies], rows)


def hit_rate_chart(results: Sequence[Mapping[str, Any]]) -> Chart:
    """The same over the capacity."""
    return Chart(
        {
            "data": {"values": [dict(result) for result in results]},
            "width": 600,
            "mark": {"type": "line", "point": True},
            "encoding": {
                "x": {"field": "capacity", "type": "quantitative", "scale": {"type": "log"}},
                "y": {"field": "prefix_rate", "type": "quantitative", "title": "prefix hit rate"},
                "color": {"field": "policy"},
            },
        }
    )
