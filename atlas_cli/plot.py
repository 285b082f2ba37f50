"""Prefix hit rates over the capacity, as a picture."""

from collections.abc import Iterator, Sequence
from math import log

from atlas_cli.simulation import Result
from atlas_cli.sizes import format_bytes

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#000000", "#cc79a7", "#56b4e9", "#e69f00", "#8c564b", "#7f7f7f")
_FRAME = 'viewBox="0 0 680 390" font-family="sans-serif" font-size="12"'
_LEFT, _TOP, _WIDTH, _HEIGHT = 60, 20, 480, 300


def plot_svg(results: Sequence[Result], in_bytes: bool) -> str:
    """A line for each policy, over a logarithmic scale of capacities."""
    capacities = sorted({result.capacity for result in results})
    policies = list(dict.fromkeys(result.policy for result in results))
    top = max(max(result.prefix_rate for result in results), 0.01)
    span = log(capacities[-1] / capacities[0]) or 1.0

    def place(capacity: int, rate: float) -> tuple[float, float]:
        return (
            round(_LEFT + _WIDTH * log(capacity / capacities[0]) / span, 1),
            round(_TOP + _HEIGHT * (1 - rate / top), 1),
        )

    def lines() -> Iterator[str]:
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {_FRAME}>'
        yield '<rect width="680" height="390" fill="white"/>'
        for step in range(5):
            rate = top * step / 4
            _, y = place(capacities[0], rate)
            yield f'<path d="M{_LEFT} {y}h{_WIDTH}" stroke="#ddd"/>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{rate:.3f}</text>'
        for capacity in capacities:
            x, y = place(capacity, 0)
            label = format_bytes(capacity) if in_bytes else f"{capacity:,}"
            yield f'<text x="{x}" y="{y + 18}" text-anchor="middle">{label}</text>'
        title = "capacity" if in_bytes else "capacity in blocks"
        yield f'<text x="{_LEFT + _WIDTH / 2}" y="370" text-anchor="middle">{title}</text>'
        for number, policy in enumerate(policies):
            colour = _COLOURS[number % len(_COLOURS)]
            points = sorted(
                place(result.capacity, result.prefix_rate) for result in results if result.policy == policy
            )
            path = " ".join(f"{x},{y}" for x, y in points)
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            for x, y in points:
                yield f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
            x, y = _LEFT + _WIDTH + 20, _TOP + 12 + 20 * number
            yield f'<text x="{x}" y="{y}" fill="{colour}">{policy}</text>'
        yield f'<text x="{_LEFT}" y="12">prefix hit rate</text>'
        yield "</svg>"

    return "\n".join(lines()) + "\n"
