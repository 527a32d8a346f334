"""The kernels of a report: launches of A and B that make the same values, side by side, each once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchport.numerics.compare import report_svg
from torchport.numerics.compare.diff import Diff
from torchport.numerics.compare.rank import RootCause
from torchport.numerics.compare.rows import Row
from torchport.numerics.compare.sides import SideReport
from torchport.numerics.programs.node_text import module_of
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.causes import cause_named
from torchport.numerics.verdicts.verdict import LEVELS, worst_level

__all__ = ["Card", "Key", "Shown", "Source", "cards_of"]

_JIT = "@triton.jit"
"""Where the function of a kernel's source begins; above it is what Inductor tells Triton about it."""

Key = tuple[str, int]
"""A launch: "A" or "B", and its number in the run."""


@dataclass(frozen=True)
class Shown:
    """One launch of a card.

    run: "A" or "B"
    side: the worst of its values
    root: its root cause, if it is one
    outputs: its values and their levels
    others: launches of the other run that make values of its, but for the one beside it
    heat: errors by region, SVG
    why: what it means that a cause explains the difference
    """

    run: str
    side: SideReport
    root: RootCause | None
    outputs: tuple[tuple[str, str], ...]
    others: tuple[Key, ...]
    heat: Any
    why: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """The source of a card's kernel.

    runs: "A", "B" or "A and B"
    function: highlighted HTML
    above: what is above the function, as its configuration, of the first run; highlighted HTML
    same_as: the anchor of the card that shows the function, if it is another one
    """

    runs: str
    function: Any
    above: Any
    same_as: str


@dataclass(frozen=True)
class Card:
    """Launches that make the same values: one of A, one of B, or both.

    anchor: the card's id
    shown: the launches, A's first
    histogram: errors in ULP of all launches, SVG
    lines: the user's source lines, each with its module and its FX nodes
    sources: of the kernels, each function once
    """

    anchor: str
    shown: tuple[Shown, ...]
    histogram: Any
    lines: tuple[tuple[str, str, str], ...]
    sources: tuple[Source, ...]

    @property
    def level(self) -> str:
        return worst_level(one.side.launch_level for one in self.shown)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the kernels, each once."""
        return tuple(dict.fromkeys(one.side.kernel for one in self.shown))


def cards_of(diff: Diff, most: int) -> tuple[list[Card], int]:
    """The first ``most`` cards, root causes by rank, then those whose values differ most; and how many there are."""
    rows = _rows_of(diff)
    roots: dict[Key, RootCause] = {(root.run, root.seq): root for root in diff.roots}
    pairs = _pairs([key for key in roots if key in rows] + [key for key in rows if key not in roots], rows)
    known: dict[str, str] = {}
    return [_card(diff, keys, rows, roots, known) for keys in pairs[:most]], len(pairs)


def _rows_of(diff: Diff) -> dict[Key, list[Row]]:
    """The values of each launch, those that differ most first."""
    rows: dict[Key, list[Row]] = {}
    for row in sorted(diff.rows, key=lambda row: -(row.difference or 0.0)):
        for run in ("A", "B"):
            if (side := row.side(run)) is not None:
                rows.setdefault((run, side.seq), []).append(row)
    return rows


def _partners(key: Key, rows: Mapping[Key, Sequence[Row]]) -> Counter[Key]:
    """How many values each launch of the other run has in common with one."""
    other = "B" if key[0] == "A" else "A"
    sides = (row.side(other) for row in rows[key])
    return Counter((other, side.seq) for side in sides if side is not None)


def _pairs(order: Sequence[Key], rows: Mapping[Key, Sequence[Row]]) -> list[tuple[Key, ...]]:
    """Each launch once: beside the launch of the other run that has most values in common with it, if that is free."""
    pairs: list[tuple[Key, ...]] = []
    taken: set[Key] = set()
    for key in order:
        if key in taken:
            continue
        free = [partner for partner, _ in _partners(key, rows).most_common() if partner not in taken]
        pair = tuple(sorted((key, *free[:1])))
        taken.update(pair)
        pairs.append(pair)
    return pairs


def _card(
    diff: Diff,
    keys: tuple[Key, ...],
    rows: Mapping[Key, Sequence[Row]],
    roots: Mapping[Key, RootCause],
    known: dict[str, str],
) -> Card:
    anchor = "-".join(f"{run}{seq}" for run, seq in keys)
    shown: list[Shown] = []
    lines: dict[tuple[str, str, str], None] = {}
    histograms: list[tuple[str, Sequence[int]]] = []
    for key in keys:
        run, seq = key
        one = _shown(key, rows, roots.get(key), tuple(other for other in _partners(key, rows) if other not in keys))
        shown.append(one)
        if one.side.verdict is not None and one.side.verdict.errors is not None:
            histograms.append((run, one.side.verdict.errors.ulp_histogram))
        for line in _lines(diff.a if run == "A" else diff.b, seq):
            lines[line] = None
    sources = _sources(diff, shown, f"kernel-{anchor}", known)
    return Card(f"kernel-{anchor}", tuple(shown), report_svg.histograms(histograms), tuple(lines), sources)


def _shown(key: Key, rows: Mapping[Key, Sequence[Row]], root: RootCause | None, others: tuple[Key, ...]) -> Shown:
    run, _ = key
    named = [
        (side, (row.node or row.other if run == "A" else row.other or row.node) or "")
        for row in rows[key]
        if (side := row.side(run)) is not None
    ]
    named.sort(key=lambda one: -LEVELS.index(one[0].level))
    sides = [side for side, _ in named]
    side = next((side for side in sides if side.verdict is not None and side.verdict.errors is not None), sides[0])
    errors = side.verdict.errors if side.verdict is not None else None
    heat = report_svg.heat_map(errors.tiles) if errors is not None else ""
    why: tuple[str, ...] = ()
    if side.attribution:
        name, share = side.attribution[0]
        cause = cause_named(name)
        why = cause.words(share, side.residual, beyond=errors is not None and errors.p99 > cause.ulp)
    return Shown(run, side, root, tuple((name, side.level) for side, name in named), others, heat, why)


def _sources(diff: Diff, shown: Sequence[Shown], anchor: str, known: dict[str, str]) -> tuple[Source, ...]:
    """Sources of the kernels of a card. ``known``: anchors of the cards that have a function, by its text."""
    runs: dict[str, list[str]] = {}
    above: dict[str, str] = {}
    for one in shown:
        run = diff.a if one.run == "A" else diff.b
        source = str(run.kernels.get(one.side.key or "", {}).get("source") or "")
        head, mark, function = source.partition(_JIT)
        text = mark + function if mark else head
        if text:
            runs.setdefault(text, []).append(one.run)
            above.setdefault(text, head if mark else "")
    found = []
    for text, names in runs.items():
        seen = known.setdefault(text, anchor)
        here = seen == anchor
        function, head = (_highlighted(part) if part and here else "" for part in (text, above[text]))
        found.append(Source(" and ".join(names), function, head, "" if here else seen))
    return tuple(found)


def _highlighted(source: str) -> Any:
    from markupsafe import Markup
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)))  # highlight() escapes


def _lines(run: Run, seq: int) -> list[tuple[str, str, str]]:
    """The user's source lines of a launch, each with its module and its FX nodes."""
    launch = next(launch for launch in run.launches if launch.seq == seq)
    graph = run.graphs.get(launch.graph, {}).get("fx", {"nodes": []})
    nodes: Mapping[str, dict[str, Any]] = {node["name"]: node for node in graph["nodes"]}
    lines: dict[tuple[str, str], list[str]] = {}
    for name in launch.nodes:
        node = nodes.get(name)
        if node is None:
            continue
        source = node["source"] or {}
        file = str(source.get("file", "")).rpartition("site-packages/")[2]
        place = f"{file}:{source['line']}  {source['code']}" if source else "no source line"
        kind = str((node.get("module") or {}).get("class") or "")
        module = f"{module_of(node)} {kind}".strip()
        lines.setdefault((place, module), []).append(f"{name} = {node['target']}{_arguments(node)}")
    return [(place, module, "\n".join(texts)) for (place, module), texts in lines.items()]


def _arguments(node: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        if isinstance(value, dict) and len(value) == 1:
            return str(next(iter(value.values())))
        return json.dumps(value)

    return "(" + ", ".join(map(text, node["args"])) + ")"
