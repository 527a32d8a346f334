"""``torchport diff``: which kernel changes the numbers between two recorded runs, and whether it may."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchport.arithmetic.profile import Profile
from torchport.errors import OptionError
from torchport.files import write_whole
from torchport.numerics.compare.as_json import as_json, environment_of, target_of
from torchport.numerics.compare.diff import Diff, compare
from torchport.numerics.compare.junit import junit
from torchport.numerics.compare.rank import RootCause
from torchport.numerics.compare.report_html import page
from torchport.numerics.compare.rows import Row
from torchport.numerics.compare.sides import SideReport
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.verdict import KernelVerdict

__all__ = ["FAIL_ON", "diff", "show"]

FAIL_ON = {
    "unverified": ("UNVERIFIED", "SUSPECT", "FAIL"), "suspect": ("SUSPECT", "FAIL"), "fail": ("FAIL",),
}  # fmt: skip
_WIDE = 110
_COLOURS = {"EXACT": "green", "EXPECTED": "green", "UNVERIFIED": "yellow", "SUSPECT": "magenta", "FAIL": "red"}


def diff(
    a: Path,
    b: Path,
    truth: str | None,
    json_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
    fail_on: str,
    top: int,
    profiles: tuple[str | None, str | None] = (None, None),
) -> int:
    """Compare two run folders and show what came of it. Returns 1 where a kernel's level is in ``fail_on``'s.

    ``profiles``: of A's and B's chip (``Profile.load``): what its arithmetic explains is EXPECTED. What emulates a
    chip says so itself.

    Raises OptionError for values that are not valid, RunError for folders that are no runs or share no graph, OSError.
    """
    from rich.console import Console
    from rich.progress import Progress

    if fail_on not in FAIL_ON:
        raise OptionError(f"--fail-on {fail_on!r} is not valid; valid: {', '.join(FAIL_ON)}")
    if truth not in (None, "fp64"):
        raise OptionError(f"--truth {truth!r} is not valid; valid: fp64")
    for file in (json_file, junit_file, html_file):
        if file is not None and not file.absolute().parent.is_dir():  # judging takes long: said before it
            raise OptionError(f"cannot write {file}: there is no folder {file.absolute().parent}")
    declared = [Profile.load(name) if name is not None else None for name in profiles]
    runs = Run.load(a), Run.load(b)

    def judged(call: RecordedCall, launch: Launch) -> KernelVerdict:
        return judge(call, launch, declared[int(call.run is runs[1])])

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("judging kernels", total=None)
        found = compare(
            *runs,
            judged,
            truth=truth is not None,
            advance=lambda done, all_: progress.update(task, completed=done, total=all_),
        )
    chips = [f"{side} is judged as {one.name} computes" for side, one in zip("AB", declared, strict=True) if one]
    found.notes[:0] = chips
    show(found, top)
    if json_file is not None:
        write_whole(json_file, (json.dumps(as_json(found), indent=1, allow_nan=False) + "\n").encode())
    if junit_file is not None:
        write_whole(junit_file, junit(found, FAIL_ON[fail_on]))
    if html_file is not None:
        write_whole(html_file, page(found).encode())
    return int(any(coverage.levels.get(level) for coverage in found.coverage.values() for level in FAIL_ON[fail_on]))


def show(found: Diff, top: int, console: Any = None) -> None:
    """The summary, then the ``top`` values: roots first, then the largest differences."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = console or Console()
    for name, run in (("A", found.a), ("B", found.b)):
        coverage = found.coverage[name]
        levels = ", ".join(f"[{_COLOURS[level]}]{count} {level}[/]" for level, count in sorted(coverage.levels.items()))
        console.print(
            f"{name} {escape(target_of(run))}: {coverage.verified} of {coverage.launches} launches verified: {levels}",
            highlight=False,
        )
        for reason, count in coverage.unverified.items():
            console.print(f"  [yellow]{count} not verified[/]: {escape(reason)}", highlight=False)
    paired = [row for row in found.rows if row.a is not None and row.b is not None]
    identical = sum(row.identical is True for row in paired)
    alone = len(found.unpaired)
    console.print(f"{len(paired)} values in both, {identical} of them bit for bit the same; {alone} without a partner")
    for what, one, other in environment_of(found.a, found.b):
        if one != other:
            console.print(f"  {escape(what)}: {escape(one)} and {escape(other)}", highlight=False)
    verified = any(one.verified for one in found.coverage.values())
    _show_roots(console, found.roots[:top], verified=verified)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    wide = console.width >= _WIDE
    for name in ("node", *(("operation", "line") if wide else ())):
        table.add_column(name, overflow="fold")
    for name in ("local A", "local B", "propag. B", "B - A"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for row in _worst(found)[:top]:
        cells = [escape(text) for text in _cells(row)]
        table.add_row(*(cells if wide else cells[:1] + cells[3:]), style=None if row.level != "FAIL" else "red")
    console.print(table)
    for note in found.notes:
        console.print(f"note: {escape(note)}", style="yellow", highlight=False)


def _show_roots(console: Any, roots: list[RootCause], *, verified: bool) -> None:
    from rich.markup import escape

    wrong = [root for root in roots if not root.legal]
    if not verified:
        console.print("[yellow]Nothing was verified[/]: record both runs with level='full'.", highlight=False)
    elif not wrong:
        console.print("No kernel's error is beyond what legal arithmetic gives.")
    for place, root in enumerate(wrong, 1):
        share = "" if root.share is None else f", {root.share:.0%} of the results' difference"
        console.print(
            f"[{_COLOURS[root.level]}]{place}. {root.level}[/] {root.run} launch {root.seq} {escape(root.kernel)}"
            f"{share}: {escape('; '.join(root.reasons))}",
            highlight=False,
        )


def _worst(found: Diff) -> list[Row]:
    """Rows of roots in their order, then those that differ most."""
    place = {(root.run, root.seq): index for index, root in enumerate(found.roots) if not root.legal}
    last = len(place)

    def order(row: Row) -> tuple[int, float]:
        sides = [("A", row.a), ("B", row.b)]
        first = min((place.get((name, side.seq), last) for name, side in sides if side is not None), default=last)
        return first, -(row.difference or 0.0)

    return sorted(found.rows, key=order)


def _cells(row: Row) -> list[str]:
    cause = next(
        (side.cause for side in (row.b, row.a) if side is not None and side.level == row.level and side.cause), ""
    )
    amplifies = " amplifies" if any(side is not None and side.amplifies for side in (row.a, row.b)) else ""
    names = [row.node or "", row.other or ""]
    return [
        names[0] if names[0] == names[1] else " / ".join(filter(None, names)),
        row.operation.removesuffix(".default"),
        _place(row.source),
        _number(row.a, "local"),
        _number(row.b, "local"),
        _number(row.b, "propagated"),
        f"{row.difference:.2g}" if row.difference is not None else row.samples or "",
        row.level + (f" ({cause})" if cause and cause != "legal rounding" else "") + amplifies,
    ]


def _number(side: SideReport | None, name: str) -> str:
    value = getattr(side, name) if side is not None else None
    return "–" if value is None else f"{value:.2g}"


def _place(source: Mapping[str, Any] | None) -> str:
    return f"{Path(source['file']).name}:{source['line']}" if source else ""
