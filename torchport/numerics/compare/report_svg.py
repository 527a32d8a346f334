"""The report's pictures as inline SVG; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from torchport.numerics.compare.diff import Diff
from torchport.numerics.compare.rows import Row
from torchport.numerics.verdicts.measure import BINS

__all__ = ["errors_of_runs", "heat_map", "histograms", "waterfall"]

_LEAST = -12.0
"""Exponent at the bottom of the axis; smaller errors are drawn there."""

_SHADES = 16
"""Of a heat map."""

_HEIGHT = 240
"""Of the chart without its axis, in pixels."""


def waterfall(diff: Diff, anchors: Mapping[tuple[str, int], str]) -> str:
    """Local, propagated and end-to-end error of every value, on a logarithmic axis, in the order of the model.

    As wide as what it is in: places along the graph are shares of the width. ``anchors``: ids in the page of launches,
    by run and number, that dots lead to.
    """
    rows = [row for row in diff.rows if any(_known(row, name) for name in ("A", "B"))]
    if not rows:
        return ""
    return _framed("errors along the graph", _curves(rows) + _dots(rows, anchors))


def errors_of_runs(runs: Sequence[Sequence[tuple[float, str, str] | None]]) -> str:
    """The error of every value in each of several runs, on a logarithmic axis, in the order of the model.

    runs: for each run and value, the error, its level and what it is in words; None where it is not known.
    """
    if not any(point is not None for run in runs for point in run):
        return ""
    count, wide = len(runs[0]), 1000
    curves = [f'<svg viewBox="0 0 {wide} {_HEIGHT}" preserveAspectRatio="none" width="100%" height="{_HEIGHT}">']
    dots: list[tuple[bool, str]] = []
    radius = max(1.2, min(3.2, 340 / count))
    for number, run in enumerate(runs):
        places = [((index + 0.5) / count, point) for index, point in enumerate(run) if point is not None]
        line = " ".join(f"{wide * x:.1f},{_height(error):.1f}" for x, (error, _, _) in places)
        curves.append(f'<polyline class="several-{number}" points="{line}"/>')
        for x, (error, level, words) in places:
            bad = level in ("SUSPECT", "FAIL")
            dots.append((bad, (
                f'<circle class="local several-{number} level-{level}" cx="{100 * x:.3f}%" cy="{_height(error):.1f}" '
                f'r="{radius + 2.6 * bad:.1f}"><title>{escape(words)}</title></circle>'
            )))  # fmt: skip
    drawn = "".join(dot for _, dot in sorted(dots, key=lambda dot: dot[0]))  # what is not legal, over the others
    return _framed("errors of each run along the graph", "".join(curves) + "</svg>" + drawn)


def _framed(label: str, content: str) -> str:
    """A chart with its axes."""
    axis, grid = [], []
    for power in range(int(_LEAST), 3, 2):
        y = _height(10.0**power)
        least = "≤" if power == _LEAST else ""
        axis.append(f'<text class="axis" x="46" y="{y + 4:.1f}" text-anchor="end">{least}1e{power}</text>')
        grid.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
    return (
        f'<div class="chart"><svg class="scale" aria-hidden="true" width="52" height="{_HEIGHT + 28}">{"".join(axis)}'
        f'</svg><svg class="waterfall" role="img" aria-label="{label}" width="100%" height="{_HEIGHT + 28}">'
        f'{"".join(grid)}{content}<text class="axis" x="0" y="{_HEIGHT + 20}">first kernel</text>'
        f'<text class="axis" x="100%" y="{_HEIGHT + 20}" text-anchor="end">last</text></svg></div>'
    )


def _curves(rows: Sequence[Row]) -> str:
    """Propagated and end-to-end errors, in a picture that is stretched to the width."""
    wide = 1000
    parts = [f'<svg viewBox="0 0 {wide} {_HEIGHT}" preserveAspectRatio="none" width="100%" height="{_HEIGHT}">']
    for name in ("A", "B"):
        for kind in ("propagated", "end_to_end"):
            points = [
                f"{wide * (index + 0.5) / len(rows):.1f},{_height(value):.1f}"
                for index, row in enumerate(rows)
                if (value := _value(row, name, kind)) is not None
            ]
            if points:
                parts.append(f'<polyline class="{kind} run-{name.lower()}" points="{" ".join(points)}"/>')
    return "".join(parts) + "</svg>"


def _dots(rows: Sequence[Row], anchors: Mapping[tuple[str, int], str]) -> str:
    """Local errors; what is not legal is drawn last, over the others."""
    radius = max(1.2, min(3.4, 340 / len(rows)))
    legal: list[str] = []
    wrong: list[str] = []
    for index, row in enumerate(rows):
        for offset, name in ((-0.17, "A"), (0.17, "B")):
            side, value = row.side(name), _value(row, name, "local")
            if value is None or side is None:
                continue
            bad = side.level in ("SUSPECT", "FAIL")
            x, y, r = 100 * (index + 0.5 + offset) / len(rows), _height(value), radius + 2.6 * bad
            title = f"{name} {row.node or row.other}: local {value:.2g}, {side.level}"
            kind = f"local run-{name.lower()} level-{side.level}"
            dot = (
                f'<circle class="{kind}" cx="{x:.3f}%" cy="{y:.1f}" r="{r:.1f}"><title>{escape(title)}</title></circle>'
            )
            if anchor := anchors.get((name, side.seq)):
                dot = f'<a href="#{escape(anchor)}">{dot}</a>'
            (wrong if bad else legal).append(dot)
    return "".join(legal + wrong)


def _known(row: Row, name: str) -> bool:
    return any(_value(row, name, kind) is not None for kind in ("local", "propagated", "end_to_end"))


def _value(row: Row, name: str, kind: str) -> float | None:
    side = row.side(name)
    value: float | None = getattr(side, kind) if side is not None else None
    return value


def _height(value: float) -> float:
    """The y coordinate of a number; 100 and more is at the top."""
    power = 2.0 if not math.isfinite(value) else math.log10(max(value, 10.0**_LEAST))
    return 8 + (2.0 - min(2.0, power)) / (2.0 - _LEAST) * (_HEIGHT - 16)


def histograms(pairs: Sequence[tuple[str, Sequence[int]]]) -> str:
    """ULP histograms of the runs, one above another, with the bins of ``torchport.numerics.verdicts.measure``."""
    used = [index for _, counts in pairs for index, count in enumerate(counts) if count]
    if not used:
        return ""
    first, last = max(0, min(used) - 1), min(BINS - 1, max(*used, 18) + 1)
    bar, each = max(4, min(16, 280 // (last - first + 1))), 70
    width, height = 60 + bar * (last - first + 1), each * len(pairs) + 24
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
    every = 4 * -(-36 // (4 * bar))  # a label has this much room
    for index in range(first, last + 1):
        if index == 0 or (index - 17) % every == 0:
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
    squares: dict[int, list[str]] = {}
    for row, values in enumerate(tiles):
        for column, value in enumerate(values):
            level = _SHADES if not math.isfinite(value) else min(_SHADES, int(value / limit * _SHADES))
            squares.setdefault(level, []).append(f"M{side * column} {side * row}h{side - 1}v{side - 1}h{1 - side}z")
    parts = [
        f'<svg class="heat" role="img" aria-label="errors by region" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}">'
    ]
    for level, paths in sorted(squares.items()):
        least, most = (limit * bound / _SHADES for bound in (level, level + 1))
        title = f"{least:.3g} to {most:.3g} sigma" if level < _SHADES else f"{limit:.3g} sigma and more, or not finite"
        opacity = 0.06 + 0.94 * level / _SHADES
        parts.append(f'<path class="tile" style="fill-opacity:{opacity:.3f}" d="{"".join(paths)}">')
        parts.append(f"<title>{title}</title></path>")
    return "".join(parts) + "</svg>"
