"""A comparison as one self-contained HTML file."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from torchport.numerics.compare import report_svg
from torchport.numerics.compare.diff import Diff
from torchport.numerics.compare.rank import RootCause
from torchport.numerics.compare.rows import Row
from torchport.numerics.compare.sides import SideReport
from torchport.numerics.programs.difference import KINDS
from torchport.numerics.programs.provenance import title_of
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.verdict import LEVELS

__all__ = ["page"]

DETAILED = 40
"""How many kernels are shown with their source; the table and the JSON have all of them."""

_BACKGROUND = re.compile(r"background(-color)?:[^;}]*;?")  # the page sets its own


@dataclass(frozen=True)
class _Kernel:
    """One launch in the details. ``lines``: the user's source lines, each with its FX nodes."""

    name: str
    anchor: str
    side: SideReport
    root: RootCause | None
    rows: tuple[Row, ...]
    lines: tuple[tuple[str, str], ...]
    source: Any
    histogram: Any
    heat: Any
    bars: Any


def page(diff: Diff) -> str:
    """``diff`` as a complete HTML document."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from pygments.formatters import HtmlFormatter

    surroundings = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    surroundings.filters["short"] = _short
    template = surroundings.from_string((files("torchport.numerics.compare") / "report.html.j2").read_text())
    light, dark = HtmlFormatter(nowrap=True), HtmlFormatter(nowrap=True, style="monokai")
    day, night = (_BACKGROUND.sub("", style.get_style_defs("pre.source")) for style in (light, dark))
    kernels = _kernels(diff, light)
    anchors = {(kernel.name, kernel.side.seq): kernel.anchor for kernel in kernels}
    paired = [row for row in diff.rows if row.a is not None and row.b is not None]
    return template.render(
        diff=diff,
        runs=[("A", diff.a, title_of(diff.a)), ("B", diff.b, title_of(diff.b))],
        kernels=kernels,
        anchors=anchors,
        wrong=[root for root in diff.roots if not root.legal],
        legal=[root for root in diff.roots if root.legal][:10],
        paired=len(paired),
        identical=sum(row.identical is True for row in paired),
        amplifiers=[row for row in diff.rows if any(side is not None and side.amplifies for side in (row.a, row.b))],
        programs=diff.programs,
        kinds=KINDS,
        changed=[one for one in diff.programs.conditions if one.differs],
        missing=diff.missing,
        waterfall=Markup(report_svg.waterfall(diff)),  # it escapes what it shows
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        highlighting=Markup(f"{day}\n@media (prefers-color-scheme: dark) {{\n{night}\n}}"),
    )


def _kernels(diff: Diff, formatter: Any) -> list[_Kernel]:
    """Launches to show in full: root causes by rank, then the launches whose values differ most."""
    rows: dict[tuple[str, int], list[Row]] = {}
    for row in sorted(diff.rows, key=lambda row: -(row.difference or 0.0)):
        for name, side in (("A", row.a), ("B", row.b)):
            if side is not None:
                rows.setdefault((name, side.seq), []).append(row)
    roots = {(root.run, root.seq): root for root in diff.roots}
    order = [key for key in roots if key in rows] + [key for key in rows if key not in roots]
    return [_kernel(diff, *key, rows[key], roots.get(key), formatter) for key in order[:DETAILED]]


def _kernel(diff: Diff, name: str, seq: int, rows: list[Row], root: RootCause | None, formatter: Any) -> _Kernel:
    from markupsafe import Markup
    from pygments import highlight
    from pygments.lexers import PythonLexer

    run = diff.a if name == "A" else diff.b
    sides = [side for row in rows if (side := row.side(name)) is not None]
    sides.sort(key=lambda side: -LEVELS.index(side.level))
    side = next((side for side in sides if side.verdict is not None and side.verdict.errors is not None), sides[0])
    source = run.kernels.get(side.key or "", {}).get("source")
    histograms = []
    for other in ("A", "B"):
        for row in rows:
            this = row.side(other)
            if this is not None and this.verdict is not None and this.verdict.errors is not None:
                histograms.append((other, this.verdict.errors.ulp_histogram))
                break
    errors = side.verdict.errors if side.verdict is not None else None
    return _Kernel(
        name,
        f"launch-{name}-{seq}",
        side,
        root,
        tuple(rows),
        tuple(_lines(run, seq)),
        Markup(highlight(source, PythonLexer(), formatter)) if source else None,  # highlight() escapes
        Markup(report_svg.histograms(histograms)),
        Markup(report_svg.heat_map(errors.tiles)) if errors is not None else "",
        Markup(report_svg.bars(side.attribution, side.residual)),
    )


def _lines(run: Run, seq: int) -> list[tuple[str, str]]:
    """The user's source lines of a launch, each with its FX nodes."""
    launch = next(launch for launch in run.launches if launch.seq == seq)
    graph = run.graphs.get(launch.graph, {}).get("fx", {"nodes": []})
    nodes: Mapping[str, dict[str, Any]] = {node["name"]: node for node in graph["nodes"]}
    lines: dict[str, list[str]] = {}
    for name in launch.nodes:
        node = nodes.get(name)
        if node is None:
            continue
        source = node["source"] or {}
        file = str(source.get("file", "")).rpartition("site-packages/")[2]
        place = f"{file}:{source['line']}  {source['code']}" if source else "no source line"
        lines.setdefault(place, []).append(f"{name} = {node['target']}{_arguments(node)}")
    return [(place, "\n".join(texts)) for place, texts in lines.items()]


def _arguments(node: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        if isinstance(value, dict) and len(value) == 1:
            return str(next(iter(value.values())))
        return json.dumps(value)

    return "(" + ", ".join(map(text, node["args"])) + ")"


def _short(value: float | None) -> str:
    """A number in a table."""
    return "–" if value is None else "0" if value == 0 else f"{value:.2g}"
