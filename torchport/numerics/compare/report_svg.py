"""The report's pictures as inline SVG; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from torchport.numerics.compare.diff import Diff
from torchport.numerics.compare.rows import Row
from torchport.numerics.verdicts.measure import BINS

__all__ = ["bars", "heat_map", "histograms", "waterfall"]

_LEAST = -12.0
"""Exponent at the bottom of the axis; smaller errors are drawn there."""


def waterfall(diff: Diff) -> str:
    """Local, propagated and end-to-end error of every value, on a logarithmic axis, in the order of the model."""
    rows = [row for row in diff.rows if any(_known(row, name) for name in ("A", "B"))]
    if not rows:
        return ""
    step = max(6.0, min(44.0, 1100 / len(rows)))
    width, height, left = 56 + step * len(rows) + 12, 240, 56
    parts = [
        f'<svg class="waterfall" role="img" aria-label="errors along the graph" viewBox="0 0 {width:.0f} {height + 28}"'
    ]
    parts.append(f' width="{width:.0f}" height="{height + 28}">')
    for power in range(-12, 3, 2):
        y = _height(10.0**power, height)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 8:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    for name in ("A", "B"):
        for kind in ("propagated", "end_to_end"):
            points = [
                f"{left + step * (index + 0.5):.1f},{_height(value, height):.1f}"
                for index, row in enumerate(rows)
                if (value := _value(row, name, kind)) is not None
            ]
            parts.append(f'<polyline class="{kind} run-{name.lower()}" points="{" ".join(points)}"/>')
    for index, row in enumerate(rows):
        for offset, name in ((-0.17, "A"), (0.17, "B")):
            value = _value(row, name, "local")
            if value is None:
                continue
            x, y = left + step * (index + 0.5 + offset), _height(value, height)
            side = row.side(name)
            assert side is not None
            title = f"{name} {row.node or row.other}: local {value:.2g}, {side.level}"
            shape = f'<circle class="local run-{name.lower()} level-{side.level}" cx="{x:.1f}" cy="{y:.1f}" r="3.4">'
            parts.append(f"{shape}<title>{escape(title)}</title></circle>")
    parts.append(f'<text class="axis" x="{left}" y="{height + 20}">first kernel</text>')
    parts.append(f'<text class="axis" x="{width - 8:.0f}" y="{height + 20}" text-anchor="end">last</text></svg>')
    return "".join(parts)


def _known(row: Row, name: str) -> bool:
    return any(_value(row, name, kind) is not None for kind in ("local", "propagated", "end_to_end"))


def _value(row: Row, name: str, kind: str) -> float | None:
    side = row.side(name)
    value: float | None = getattr(side, kind) if side is not None else None
    return value


def _height(value: float, height: int) -> float:
    """The y coordinate of a number; 100 and more is at the top."""
    power = 2.0 if not math.isfinite(value) else math.log10(max(value, 10.0**_LEAST))
    return 8 + (2.0 - min(2.0, power)) / (2.0 - _LEAST) * (height - 16)


def histograms(pairs: Sequence[tuple[str, Sequence[int]]]) -> str:
    """ULP histograms of the runs, one above another, with the bins of ``torchport.numerics.verdicts.measure``."""
    used = [index for _, counts in pairs for index, count in enumerate(counts) if count]
    if not used:
        return ""
    first, last = max(0, min(used) - 1), min(BINS - 1, max(*used, 18) + 1)
    bar, each = max(8, 460 // (last - first + 1)), 70
    width, height = 40 + bar * (last - first + 1), each * len(pairs) + 24
    parts = [
        f'<svg class="histogram" role="img" aria-label="ULP errors" viewBox="0 0 {width} {height}" width="{width}" '
    ]
    parts.append(f'height="{height}">')
    for place, (name, counts) in enumerate(pairs):
        total, base = max(1, sum(counts)), each * (place + 1) - 4
        parts.append(f'<text class="axis" x="2" y="{base - 22}">{escape(name)}</text>')
        for index in range(first, last + 1):
            share = counts[index] / total
            tall = max(1.5, share**0.5 * (each - 16)) if counts[index] else 0
            x, title = 36 + bar * (index - first), f"{name}: {counts[index]} elements, {_bin(index)}"
            parts.append(
                f'<rect class="bar run-{name.lower()}" x="{x}" y="{base - tall:.1f}" width="{bar - 2}" '
                f'height="{tall:.1f}"><title>{escape(title)}</title></rect>'
            )
    for index in range(first, last + 1):
        if index == 0 or (index - 17) % 4 == 0:
            x = 36 + bar * (index - first)
            parts.append(
                f'<text class="axis" x="{x}" y="{height - 6}">{"0" if index == 0 else f"2^{index - 17}"}</text>'
            )
    return "".join(parts) + "</svg>"


def _bin(index: int) -> str:
    return "no error" if index == 0 else f"2^{index - 17} to 2^{index - 16} ULP"


def heat_map(tiles: Sequence[Sequence[float]], limit: float = 8.0) -> str:
    """Root mean square error of a tensor's regions in sigmas; full colour from ``limit`` on."""
    rows, columns = len(tiles), max(map(len, tiles), default=0)
    if not rows or not columns:
        return ""
    side = 18
    width, height = side * columns, side * rows
    parts = [
        f'<svg class="heat" role="img" aria-label="errors by region" viewBox="0 0 {width} {height}" width="{width}" '
    ]
    parts.append(f'height="{height}">')
    for row, values in enumerate(tiles):
        for column, value in enumerate(values):
            share = 1.0 if not math.isfinite(value) else min(1.0, value / limit)
            parts.append(
                f'<rect class="tile" x="{side * column}" y="{side * row}" width="{side - 1}" height="{side - 1}" '
                f'style="fill-opacity:{0.06 + 0.94 * share:.3f}"><title>row {row}, column {column}: '
                f"{value:.3g} sigma</title></rect>"
            )
    return "".join(parts) + "</svg>"


def bars(shares: Sequence[tuple[str, float]], residual: float | None) -> str:
    """The share of the difference that each cause explains, and the residual."""
    lines = [*shares, *([("not explained", residual)] if residual is not None else [])]
    if not lines:
        return ""
    height = 24 * len(lines)
    parts = [
        f'<svg class="bars" role="img" aria-label="attribution" viewBox="0 0 480 {height}" width="480" ',
        f'height="{height}">',
    ]
    for place, (name, share) in enumerate(lines):
        y, wide = 24 * place, 230 * min(1.0, max(0.0, share))
        kind = "residual" if name == "not explained" else "share"
        parts.append(f'<text class="axis" x="186" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="{kind}" x="194" y="{y + 4}" width="{wide:.1f}" height="15" rx="3"/>')
        parts.append(f'<text class="axis" x="{200 + wide:.1f}" y="{y + 16}">{share:.0%}</text>')
    return "".join(parts) + "</svg>"
