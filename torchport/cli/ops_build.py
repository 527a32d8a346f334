"""``torchport ops build``: kernels of operators compiled before a model needs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.markup import escape

from torchport.cli.console import standard_output
from torchport.cli.working import working
from torchport.prebuild.building import VERDICTS, Outcome, build, check_cache
from torchport.prebuild.items import Item, chosen
from torchport.target import Target

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["build_operators", "list_names"]

_TITLES = {"built": "built", "there": "already there", "unsupported": "not supported", "failed": "failed"}
_CAPTION = "kinds of calls: types, ranks and layouts; n/s: not supported"


@dataclass
class _Row:
    """What came of an operator's items. ``reasons``: for each verdict with a reason, and how often."""

    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    kernels: int = 0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.verdicts[outcome.verdict] += 1
        self.kernels += outcome.kernels
        self.seconds += outcome.seconds
        if outcome.detail:
            self.reasons[outcome.verdict, outcome.detail] += 1


def list_names(target: str, dtypes: str, only: Sequence[str]) -> None:
    """Print the operators that ``build_operators`` would build, and how many calls of each."""
    items = chosen(Target.parse(target), _names(dtypes), only)
    for name, calls in Counter(item.name for item in items).items():
        print(f"{name}  {calls}")


def build_operators(target: str, dtypes: str, only: Sequence[str], *, jobs: int, timeout: float) -> int:
    """Compile what operators need on ``target`` into torchport's cache, and print a table.

    dtypes: types that models compute in, comma separated.
    only: names of operators, or patterns.

    Returns 1 if something failed, which is not the same as not supported. Raises OptionError, TargetError.
    """
    parsed = Target.parse(target)
    items = chosen(parsed, _names(dtypes), only)
    check_cache()
    rows = {item.name: _Row() for item in items}
    with working(f"operators for {parsed}", len(items), stays=True) as work:

        def done(item: Item, outcome: Outcome) -> None:
            work.step()
            rows[item.name].add(outcome)
            if outcome.verdict == "failed":
                work.say(f"FAILED {item.name} {item.dtype}: {outcome.detail}")

        build(parsed, items, jobs, timeout, done)
    _show(standard_output(), str(parsed), rows)
    return int(any(row.verdicts["failed"] for row in rows.values()))


def _names(dtypes: str) -> list[str]:
    return [name.strip() for name in dtypes.split(",")]


def _show(console: Console, target: str, rows: Mapping[str, _Row]) -> None:
    """The table by name, the reasons, and the sum."""
    from rich import box
    from rich.table import Table

    table = Table("operator", box=box.SIMPLE, caption=_CAPTION, caption_justify="left")
    table.columns[0].no_wrap = True
    for title in ("built", "there", "n/s", "failed", "kernels", "seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, row in rows.items():
        counts = (str(row.verdicts[verdict] or "") for verdict in VERDICTS)
        table.add_row(name, *counts, str(row.kernels or ""), f"{row.seconds:.1f}")
    console.print(table)
    for name, row in rows.items():
        for (verdict, reason), times in row.reasons.items():
            often = f" {times} times" if times > 1 else ""
            console.print(f"{name} {_TITLES[verdict]}{often}: {escape(reason)}", highlight=False)
    total = sum((row.verdicts for row in rows.values()), Counter[str]())
    parts = ", ".join(f"{total[verdict]} {title}" for verdict, title in _TITLES.items())
    kernels = sum(row.kernels for row in rows.values())
    print(f"{target}, {len(rows)} operators, {sum(total.values())} kinds of calls: {parts}; {kernels} kernels compiled")
