"""A comparison as one self-contained HTML file."""

from __future__ import annotations

import datetime
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from torchport.numerics.compare import report_svg
from torchport.numerics.compare.diff import Diff
from torchport.numerics.compare.rank import RootCause
from torchport.numerics.compare.report_kernels import Card, Key, cards_of
from torchport.numerics.programs.difference import KINDS
from torchport.numerics.programs.node_text import module_path
from torchport.numerics.programs.provenance import title_of

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["page", "surroundings"]

DETAILED = 40
"""How many cards of kernels are shown; the table and the JSON have all of them."""

_LEGAL = 10
"""How many of the largest legal errors are shown."""

_BREAK = re.compile(r"([._/\\])(?=\w)")
"""Where long names may be broken."""

_BACKGROUND = re.compile(r"background(-color)?:[^;}]*;?")  # the page sets its own


def page(diff: Diff) -> str:
    """``diff`` as a complete HTML document."""
    from markupsafe import Markup
    from pygments.formatters import HtmlFormatter

    folder = files("torchport.numerics.compare")
    template = surroundings().from_string((folder / "report.html.j2").read_text())
    light, dark = HtmlFormatter(nowrap=True), HtmlFormatter(nowrap=True, style="monokai")
    day, night = (_BACKGROUND.sub("", style.get_style_defs("pre.source")) for style in (light, dark))
    cards, all_cards = cards_of(diff, DETAILED)
    anchors: dict[Key, str] = {(one.run, one.side.seq): card.anchor for card in cards for one in card.shown}
    paired = [row for row in diff.rows if row.a is not None and row.b is not None]
    return template.render(
        diff=diff,
        runs=[("A", diff.a, title_of(diff.a)), ("B", diff.b, title_of(diff.b))],
        cards=cards,
        all_cards=all_cards,
        anchors=anchors,
        wrong=[root for root in diff.roots if not root.legal],
        legal=_legal(diff, cards),
        paired=len(paired),
        identical=sum(row.identical is True for row in paired),
        amplifiers=[row for row in diff.rows if any(side is not None and side.amplifies for side in (row.a, row.b))],
        programs=diff.programs,
        kinds=KINDS,
        changed=[one for one in diff.programs.conditions if one.differs],
        missing=diff.missing,
        waterfall=report_svg.waterfall(diff, anchors),
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup((folder / "report.css").read_text()),
        highlighting=Markup(f"{day}\n@media (prefers-color-scheme: dark) {{\n{night}\n}}"),
    )


def surroundings() -> Environment:
    """What templates of reports are read in: they escape all values, and have filters for numbers and long names."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup, escape

    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["short"] = _short
    made.filters["module"] = module_path
    made.filters["wrap"] = lambda text: Markup(_BREAK.sub(r"\1<wbr>", str(escape(text))))
    made.filters["svg"] = Markup  # pictures escape what they show
    return made


def _legal(diff: Diff, cards: list[Card]) -> list[dict[str, Any]]:
    """The largest legal errors, those of launches that are on one card together."""
    together = {(one.run, one.side.seq): index for index, card in enumerate(cards) for one in card.shown}
    found: dict[Any, dict[str, RootCause]] = {}
    for root in diff.roots:
        if root.legal:
            key = root.run, root.seq
            found.setdefault(together.get(key, key), {})[root.run] = root
    shown = list(found.values())[:_LEGAL]
    return [{"one": next(iter(both.values())), "A": both.get("A"), "B": both.get("B")} for both in shown]


def _short(value: float | None) -> str:
    """A number in a table."""
    return "–" if value is None else "0" if value == 0 else f"{value:.2g}"
