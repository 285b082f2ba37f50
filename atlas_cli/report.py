"""Results of simulations, for people and for programs."""

from collections.abc import Sequence
from dataclasses import asdict

import msgspec
from rich.table import Table

from atlas_cli.simulation import Result
from atlas_cli.sizes import format_bytes

RATES = ("block_rate", "prefix_rate", "token_rate")


def to_table(results: Sequence[Result], in_bytes: bool) -> Table:
    """A table with a section for each capacity; the best prefix rate that needs no future is bold."""
    table = Table(
        "capacity", "policy", title=f"{results[0].requests:,} requests, {results[0].blocks:,} blocks"
    )
    for name in ("blocks hit", "prefix hit", "tokens hit", "policy s"):
        table.add_column(name, justify="right")
    for capacity in dict.fromkeys(result.capacity for result in results):
        group = [result for result in results if result.capacity == capacity]
        best = max((result.prefix_rate for result in group if result.policy != "belady"), default=None)
        label = format_bytes(capacity) if in_bytes else f"{capacity:,}"
        for result in group:
            rates = [f"{getattr(result, rate):.4f}" for rate in RATES]
            style = "bold" if result.prefix_rate == best and result.policy != "belady" else None
            table.add_row(label, result.policy, *rates, f"{result.policy_seconds:.2f}", style=style)
            label = ""
        table.add_section()
    return table


def to_json(results: Sequence[Result]) -> str:
    """An array of objects: the fields of each result, and its rates."""
    rows = [asdict(result) | {rate: getattr(result, rate) for rate in RATES} for result in results]
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()
