"""What `make bench` and `make soak` say of their samples."""

import argparse
import re
import xml.etree.ElementTree as ET

import pytest

from load import soak
from load.arguments import positive, positive_number
from load.benchmark import tables
from load.benchmark.client import Plan, body_of
from load.benchmark.servers import CASES, CLIENT_CPU, OVERHEAD, PLAIN, STOCK_AGAIN, Samples
from load.report import Chart, Table, page
from load.resume import resume_table, stalls_table

START_UP, RESIDENT, LATENCY = "start-up, ms", "resident at first, MiB", "latency, 1 client, p50, ms"
BASE = [100.0, 104.0, 98.0, 101.0, 99.0, 102.0]


def samples(rounds: int = len(BASE), client_cpu: float = 0.2) -> Samples:
    """ATLAS starts twice as slowly, and answers as soon within what stock differs from itself."""
    found: Samples = {}
    for case in CASES:
        start_up = 2.0 if case.name == PLAIN else 1.0
        latency = {STOCK_AGAIN: 1.04, PLAIN: 1.02}.get(case.name, 1.0)
        found[case.name] = {
            START_UP: [value * start_up for value in BASE],
            RESIDENT: [40.0 + 30.0 * (case.name == PLAIN)] * len(BASE),
            LATENCY: [value * latency for value in BASE],
            CLIENT_CPU: [client_cpu] * len(BASE),
        }
        if case.atlas is not None:
            found[case.name] |= {name: [0.04] * len(BASE) for name in OVERHEAD}
    return {
        case: {name: values[:rounds] for name, values in figures.items()} for case, figures in found.items()
    }


def test_only_differences_beyond_the_noise_are_bold() -> None:
    against_stock, hooks, overhead, budgets = tables.comparison_tables(samples())
    cells = {row[0]: dict(zip(against_stock.header, row, strict=True)) for row in against_stock.rows}
    assert cells[START_UP][PLAIN] == "**2.000x (2.000 to 2.000)**"
    assert cells[LATENCY][PLAIN] == "1.020x (1.020 to 1.020)"
    assert cells[LATENCY]["noise"] == "0.962 to 1.040"
    assert STOCK_AGAIN not in against_stock.header
    assert not any("**" in cell for row in hooks.rows for cell in row)
    assert [row[1] for row in overhead.rows] == ["0.040 (0.040 to 0.040)"] * 3
    assert budgets.rows[1] == [RESIDENT, "30.0 (30.0 to 30.0)", "64"]


def test_few_rounds_tell_no_differences() -> None:
    first = tables.comparison_tables(samples(rounds=3))[0]
    assert "cannot tell" in first.note
    assert not any("**" in cell for row in first.rows for cell in row)


def test_a_busy_load_generator_is_told() -> None:
    assert "it limited" not in tables.comparison_tables(samples())[-1].note
    assert "95% of a core" in tables.comparison_tables(samples(client_cpu=0.95))[-1].note
    assert "it limited" in tables.comparison_tables(samples(client_cpu=0.95))[-1].note


def test_the_page_has_tables_and_charts_and_loads_nothing() -> None:
    found = samples()
    gaps = {"quiet <&>": [1.0, 2.0, 3.0], "beside": [1.0, 9.0]}
    rates = [
        {"capacity": capacity, "policy": policy, "prefix_rate": rate, "requests": 9, "blocks": 10}
        for capacity, policy, rate in [
            (100, "lru", 0.1),
            (1000, "lru", 0.4),
            (100, "lfu", 0.2),
            (1000, "lfu", 0.3),
        ]
    ]
    times = {"ATLAS warm": [2.0, 4.0], "ATLAS disk": [6.0]}
    parts: list[Table | Chart] = [
        *tables.comparison_tables(found),
        tables.comparison_chart(found),
        resume_table(2048, 1, {"ATLAS": 100.0}, times),
        stalls_table(2048, gaps),
        tables.gaps_chart(gaps),
        tables.hit_rate_table(rates),
        tables.hit_rate_chart(rates),
    ]
    text = page("A <page>", parts)
    pictures = [ET.fromstring(picture) for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert len(pictures) == 3
    assert STOCK_AGAIN not in text
    for shown in (
        "A &lt;page&gt;",
        "<code>atlas</code> object",
        "<td>quiet &lt;&amp;&gt;</td>",
        "0.4000",
        "2.00x",
    ):
        assert shown in text
    assert not re.search(r"<script|<link|(?:src|href)=\"", text)


def test_a_table_in_markdown() -> None:
    table = Table("Title", "Note.", ["a", "b"], [["1", "2"]])
    assert table.markdown() == "## Title\n\nNote.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"


def test_equal_plans_send_equal_requests() -> None:
    plan = Plan("http://127.0.0.1:1", clients=2, requests=9, seed=7, atlas={"memory_layers": 1})
    first, other = body_of(plan, 3, client=0), body_of(plan, 3, client=1)
    assert first.pop("atlas") == {"memory_layers": 1, "session_id": "client-0"}
    assert other.pop("atlas") == {"memory_layers": 1, "session_id": "client-1"}
    assert first == other
    assert first["messages"] != body_of(plan, 4, client=0)["messages"]
    assert "atlas" not in body_of(Plan(plan.url, 1, 1, seed=7), 3, client=0)


IDLE = {"threads": 20, "descriptors": 7}


def soaked(last_mib: float) -> soak.Samples:
    """An hour in which memory grows fast at first, and then to `last_mib`."""
    minutes = [float(minute) for minute in range(61)]
    grown = [50.0 + minute for minute in minutes[:20]]
    then = [100.0 + (last_mib - 100.0) * step / 40 for step in range(41)]
    flat = {name: [10.0] * 61 for name in soak.FIGURES}
    known = {soak.KNOWN: [min(1000.0, 100 * minute) for minute in minutes]}
    return {soak.TIME: minutes} | flat | known | {"resident, MiB": grown + then}


@pytest.mark.parametrize(("last_mib", "verdict"), [(103.0, "flat"), (120.0, "**rises**"), (60.0, "flat")])
def test_a_soak_judges_what_comes_after_the_warm_up(last_mib: float, verdict: str) -> None:
    found = soaked(last_mib)
    median = 100 + (last_mib - 100) / 2
    assert soak.rises(found)["resident, MiB"] == pytest.approx((last_mib - 100) / median)
    assert [row[-1] for row in soak.table(found, IDLE, IDLE).rows] == [verdict, "flat", "flat", "flat", ""]
    assert "<svg" in page("Soak", [soak.chart(found)])


def test_a_soak_counts_what_clients_leave_behind() -> None:
    found = soaked(100.0)
    found["threads"] = [20.0 + minute for minute in found[soak.TIME]]
    for after, verdict in ((20, "flat"), (19, "flat"), (21, "**21 afterwards**")):
        rows = soak.table(found, IDLE, IDLE | {"threads": after}).rows
        assert [row[-2:] for row in rows if row[0] == "threads"] == [["20 afterwards", verdict]]
        assert bool(soak.faults(found, IDLE, IDLE | {"threads": after})) == (after > 20)


@pytest.mark.parametrize(("per_minute", "begin"), [(1000.0, 20.0), (30.0, 32.0), (10.0, 40.0)])
def test_a_soak_waits_until_eviction_knows_nearly_all_it_will(per_minute: float, begin: float) -> None:
    found = soaked(100.0)
    found[soak.KNOWN] = [min(1000.0, per_minute * minute) for minute in found[soak.TIME]]
    assert soak.judged_from(found) == pytest.approx(begin)


def test_arguments() -> None:
    assert (positive("12"), positive_number("0.5")) == (12, 0.5)
    for text in ("0", "-1", "1.5", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is no whole number of at least 1"):
            positive(text)
    for text in ("0", "-1", "nan", "inf", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is no number above 0"):
            positive_number(text)
