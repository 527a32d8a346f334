"""The report's picture as inline SVG: speed against accuracy; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["speed_against_accuracy"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 320, 56, 12, 40


def speed_against_accuracy(
    cells: Sequence[Mapping[str, Any]], targets: Sequence[str], anchors: Mapping[Any, str]
) -> str:
    """A dot for each cell with a time: how fast against eager, how far from float64; both axes are logarithmic.

    targets: in the order of their colours. anchors: ids in the page, by model and target, that dots lead to. Empty
    where nothing was timed.
    """
    dots = [(cell, *point) for cell in cells if (point := _point(cell)) is not None]
    if not dots:
        return ""
    places = [(x, y) for _, x, y in dots]
    (x0, x1), (y0, y1) = (_range([math.log10(dot[axis]) for dot in places]) for axis in (0, 1))
    wide, tall = _WIDTH - _LEFT - 12, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + (x - x0) / (x1 - x0) * wide, _TOP + (y1 - y) / (y1 - y0) * tall

    parts = [
        f'<svg class="scatter" role="img" aria-label="speed against accuracy" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}">'
    ]
    parts += _grid(x0, x1, y0, y1, place)
    for cell, x, y in dots:
        left, top = place(math.log10(x), math.log10(y))
        number = targets.index(cell["target"])
        title = f"{cell['model']} on {cell['target']}: {x:.2g} times as fast as eager, relative error {y:.2g}"
        dot = f'<circle class="series s{number % 8} level-{cell["level"]}" cx="{left:.1f}" cy="{top:.1f}" r="5">'
        dot += f"<title>{escape(title)}</title></circle>"
        anchor = anchors.get((cell["model"], cell["target"]))
        parts.append(f'<a href="#{escape(anchor)}">{dot}</a>' if anchor else dot)
    return "".join(parts) + "</svg>"


def _point(cell: Mapping[str, Any]) -> tuple[float, float] | None:
    if cell["status"] != "ok" or not cell.get("accuracy"):
        return None
    ratio = ((cell.get("time") or {}).get("over_eager") or {}).get("ratio")
    error = cell["accuracy"]["truth"]["mean"]
    return (ratio, error) if ratio and error else None


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max(0.15, 0.06 * (high - low))
    return low - room, high + room


def _grid(x0: float, x1: float, y0: float, y1: float, place: Any) -> list[str]:
    parts = []
    for value in _ticks(x0, x1, (1, 2, 5)):
        x, _ = place(math.log10(value), y0)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(
            f'<text class="axis" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{value:g}</text>'
        )
    for value in _ticks(y0, y1, (1,) if y1 - y0 > 2 else (1, 2, 5)):
        _, y = place(x0, math.log10(value))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.0e}</text>')
    middle = (_LEFT + _WIDTH) / 2
    label = "times as fast as eager torch on the CPU"
    parts.append(f'<text class="axis" x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{label}</text>')
    return parts


def _ticks(low: float, high: float, steps: Sequence[int]) -> list[float]:
    found = [step * 10.0**power for power in range(math.floor(low) - 1, math.ceil(high) + 1) for step in steps]
    return [value for value in found if low <= math.log10(value) <= high]
