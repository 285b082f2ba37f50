"""Flame graphs: which functions were on the CPU, and who called them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import vl_convert

from load.report import VEGA_LITE

# Pixels: of the graph, of a row in it, of a letter.
WIDTH, ROW, LETTER = 1200, 18, 7
# Frames of a smaller part of all samples are left out.
LEAST_SHARE = 0.001


class Frame(NamedTuple):
    """A function, and the library it is in: a short name, ATLAS for what ATLAS adds."""

    function: str
    library: str


Stack = tuple[Frame, ...]
Stacks = Counter[Stack]


@dataclass
class Box:
    """A frame with those it called: `begin` and `end` in samples, `depth` from the outermost, 0."""

    frame: Frame
    depth: int
    begin: int
    end: int


def fold(stacks: Stacks) -> str:
    """A line for each stack, its functions apart by semicolons, and its samples."""
    return "".join(
        ";".join(frame.function.replace(";", ":") for frame in stack) + f" {count}\n"
        for stack, count in sorted(stacks.items())
    )


def boxes(stacks: Stacks) -> Iterator[Box]:
    """Equal outer frames side by side as one box, as flame graphs have them."""
    open_boxes: list[Box] = []
    at = 0
    for stack, count in sorted(stacks.items()):
        common = 0
        while common < min(len(open_boxes), len(stack)) and open_boxes[common].frame == stack[common]:
            common += 1
        yield from open_boxes[common:]
        del open_boxes[common:]
        open_boxes += [Box(stack[depth], depth, at, at) for depth in range(common, len(stack))]
        at += count
        for box in open_boxes:
            box.end = at
    yield from open_boxes


def specification(title: str, stacks: Stacks) -> dict[str, Any]:
    """The flame graph in Vega-Lite."""
    total = stacks.total()
    rows: list[dict[str, Any]] = []
    height = 0
    for box in boxes(stacks):
        share = (box.end - box.begin) / total
        if share >= LEAST_SHARE:
            height = max(height, ROW * (box.depth + 1))
            place = {"left": box.begin / total, "right": box.end / total}
            place |= {"bottom": box.depth, "top": box.depth + 1}
            label = box.frame.function[: int(share * WIDTH / LETTER)]
            rows.append(place | box.frame._asdict() | {"share": share, "label": label})
    x = {"field": "left", "type": "quantitative", "axis": None}
    y = {"field": "bottom", "type": "quantitative", "axis": None, "scale": {"nice": False}}
    tooltip = [{"field": name} for name in Frame._fields] + [{"field": "share", "format": ".2%"}]
    colour = {"field": "library", "legend": {"orient": "bottom", "columns": 8}}
    zoom = {"type": "interval", "encodings": ["x"]}
    rectangles = {
        "params": [{"name": "zoom", "select": zoom, "bind": "scales"}],
        "mark": {"type": "rect", "clip": True, "stroke": "white", "strokeWidth": 0.5},
        "encoding": {
            "x": x,
            "x2": {"field": "right"},
            "y": y,
            "y2": {"field": "top"},
            "color": colour,
            "tooltip": tooltip,
        },
    }
    labels = {
        "mark": {"type": "text", "align": "left", "dx": 2, "dy": -ROW / 2, "clip": True, "fontSize": 11},
        "encoding": {"x": x, "y": y, "text": {"field": "label"}},
    }
    layers = {"layer": [rectangles, labels]}
    return {"title": title, "data": {"values": rows}, "width": WIDTH, "height": height} | layers


def draw(title: str, stacks: Stacks) -> str:
    """The flame graph as an HTML page that loads nothing: the wheel zooms, the mouse shows names."""
    return str(vl_convert.vegalite_to_html(specification(title, stacks), vl_version=VEGA_LITE, bundle=True))
