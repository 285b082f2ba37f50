"""`atlas simulate` and `atlas generate-trace`."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from atlas_cli import report
from atlas_cli.console import fail
from atlas_cli.plot import plot_svg
from atlas_cli.simulation import (
    BLOCK_TOKENS,
    LOADS,
    POLICIES,
    MissingLibrary,
    Result,
    TraceError,
    TraceRequest,
    read_trace,
    replay,
    write_trace,
)
from atlas_cli.sizes import parse_bytes, parse_counts

DEFAULT_POLICIES = ("adaptive", "lru", "lfu", "belady")
DEFAULT_BLOCKS = "1000,3000,10000,30000,50000"


class Format(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"


class Load(StrEnum):
    """The loads that can be generated."""

    scan = "scan"
    loop = "loop"
    shift = "shift"


def simulate(
    trace: Annotated[
        Path, typer.Argument(help="Requests as JSON lines in the format of Mooncake; also .gz, .xz.")
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(POLICIES)}; repeat it for more.", show_default="four of them"),
    ] = None,
    blocks: Annotated[
        str | None, typer.Option(help="Capacities in blocks, as 1000,3000.", show_default=DEFAULT_BLOCKS)
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Capacities in bytes instead, as 64MiB,1GiB; needs --block-bytes.")
    ] = None,
    block_bytes: Annotated[
        str | None, typer.Option(help="Bytes of a full block, as 8MiB, with --budget.")
    ] = None,
    block_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a block in the trace.")] = BLOCK_TOKENS,
    output: Annotated[Format, typer.Option("--format", help="How to print the results.")] = Format.table,
    plot: Annotated[Path | None, typer.Option(help="Also draw the prefix hit rates, as SVG.")] = None,
) -> None:
    """Replay a trace against a layer and print what would have been found in it.

    Adaptive, lru and lfu are the strategies of the server; lfu-classic never ages, belady knows the future.
    arc, lirs, gdsf and cacheus come from the optional package libcachesim.
    """
    policies = tuple(dict.fromkeys(policy or DEFAULT_POLICIES))
    for name in policies:
        if name not in POLICIES:
            raise typer.BadParameter(
                f"there is no policy '{name}'; the policies are {', '.join(POLICIES)}", param_hint="--policy"
            )
    capacities, size = _capacities(blocks, budget, block_bytes)
    try:
        results = _run(list(read_trace(trace, block_tokens)), policies, capacities, size)
        if plot is not None:
            plot.write_text(plot_svg(results, in_bytes=budget is not None), encoding="utf-8")
    except (TraceError, MissingLibrary) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{plot}: cannot be written: {error}")
    if output is Format.json:
        typer.echo(report.to_json(results))
    else:
        Console().print(report.to_table(results, in_bytes=budget is not None))


def generate_trace(
    load: Annotated[
        Load,
        typer.Argument(
            help="scan: popular documents and as many that never return; "
            "loop: one after the other, again and again; "
            "shift: popularity changes ten times."
        ),
    ],
    output: Annotated[Path, typer.Argument(help="The file to write; packed when it ends in .gz or .xz.")],
    requests: Annotated[int, typer.Option(min=1, help="How many requests.")] = 5_000,
    blocks: Annotated[int, typer.Option(min=1, help="Blocks of all documents that return.")] = 3_000,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal traces.")] = 1,
) -> None:
    """Write a synthetic trace that some policies fail on."""
    try:
        write_trace(output, LOADS[load](requests, blocks, seed))
    except OSError as error:
        fail(f"{output}: cannot be written: {error}")


def _capacities(blocks: str | None, budget: str | None, block_bytes: str | None) -> tuple[list[int], int]:
    if budget is None:
        if block_bytes is not None:
            raise typer.BadParameter("has a meaning only with --budget", param_hint="--block-bytes")
        return _parsed(parse_counts, DEFAULT_BLOCKS if blocks is None else blocks, "--blocks"), 1
    if blocks is not None:
        raise typer.BadParameter("give either --blocks or --budget", param_hint="--budget")
    if block_bytes is None:
        raise typer.BadParameter("needs --block-bytes", param_hint="--budget")
    (size, *more) = _parsed(parse_bytes, block_bytes, "--block-bytes")
    if more:
        raise typer.BadParameter("takes one size", param_hint="--block-bytes")
    return _parsed(parse_bytes, budget, "--budget"), size


def _run(
    requests: list[TraceRequest], policies: tuple[str, ...], capacities: list[int], size: int
) -> list[Result]:
    results = []
    with Console(stderr=True).status("") as status:
        for capacity in capacities:
            for name in policies:
                status.update(f"{name}, capacity {capacity}")
                results.append(replay(requests, name, capacity, size))
    return results


def _parsed(parse: Callable[[str], list[int]], text: str, option: str) -> list[int]:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
