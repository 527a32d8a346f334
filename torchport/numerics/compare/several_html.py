"""Several runs of one program as one self-contained HTML file."""

from __future__ import annotations

import datetime
from importlib.resources import files

from torchport.numerics.compare import report_svg
from torchport.numerics.compare.report_html import surroundings
from torchport.numerics.compare.several import Several
from torchport.numerics.programs.difference import KINDS

__all__ = ["several_page"]

_COLOURS = (("#2456b8", "#8ab4ff"), ("#c2570c", "#ffab70"), ("#14804a", "#6fd39a"), ("#8b3fb3", "#d39bf0"),
            ("#946c00", "#e8c250"), ("#0f7f8c", "#66d0dc"), ("#b3265e", "#ff9abf"), ("#4d5866", "#b8c2cf"))  # fmt: skip
"""Of runs, by light and by dark; more runs take them again."""


def several_page(found: Several) -> str:
    """``found`` as a complete HTML document."""
    from markupsafe import Markup

    folder = files("torchport.numerics.compare")
    template = surroundings().from_string((folder / "several.html.j2").read_text())
    points = [
        [
            (error, side.level, f"{column.name} {line.name}: {error:.2g}, {side.level}")
            if (side := line.sides[number]) is not None and (error := line.error(number)) is not None
            else None
            for line in found.lines
        ]
        for number, column in enumerate(found.columns)
    ]
    return template.render(
        found=found,
        kinds=KINDS,
        chart=Markup(report_svg.errors_of_runs(points)) if found.lines else "",
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup((folder / "report.css").read_text() + _style(len(found.columns))),
    )


def _style(count: int) -> str:
    rules = []
    for number in range(count):
        light, dark = _COLOURS[number % len(_COLOURS)]
        colour = f"light-dark({light}, {dark})"
        rules.append(
            f"svg circle.several-{number} {{ fill: {colour} }} svg polyline.several-{number} {{ stroke: {colour} }} "
            f".swatch.several-{number} {{ background: {colour} }}"
        )
    return "\n".join(rules)
