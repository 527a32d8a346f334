"""``torchport diff A B C ...``: several runs, each compared with the first, in one table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchport.cli.console import standard_output
from torchport.cli.levels import COLOURS
from torchport.cli.precision.diff import FAIL_ON, check_options, compared, not_comparable
from torchport.cli.precision.program_lines import program_lines
from torchport.errors import RunError
from torchport.files import write_whole
from torchport.numerics.compare.several import Column, Line, Several, several, several_as_json
from torchport.numerics.compare.several_html import several_page
from torchport.numerics.runs.reader import Run

__all__ = ["diff_several"]


def diff_several(
    folders: Sequence[Path],
    truth: str | None,
    json_file: Path | None,
    html_file: Path | None,
    fail_on: str,
    top: int,
    *,
    trust: bool = False,
    algebra: bool = False,
) -> int:
    """Compare run folders with the first of them and show one table. Arguments, errors as of ``diff.diff``.

    Returns the worst exit status of the comparisons: 1, then 3, then 2, then 0.
    """
    check_options(truth, fail_on, (json_file, html_file))
    try:
        first, *others = (Run.load(folder, trust=trust) for folder in folders)
        diffs = [compared(first, run, truth=truth is not None, trust=trust, algebra=algebra) for run in others]
    except RunError as error:
        return not_comparable(error)
    found = several(diffs)
    _show(found, top, standard_output())
    if json_file is not None:
        write_whole(json_file, (json.dumps(several_as_json(found), indent=1, allow_nan=False) + "\n").encode())
    if html_file is not None:
        write_whole(html_file, several_page(found).encode())
    return found.status(FAIL_ON[fail_on])


def _show(found: Several, top: int, console: Console) -> None:
    for column in found.columns[1:]:
        assert column.diff is not None
        if not column.diff.programs.same or column.diff.missing or column.diff.programs.unknown:
            console.print(f"{escape(column.name)} against {escape(found.columns[0].name)}:", highlight=False)
            for line in program_lines(column.diff.programs, column.diff.missing):
                console.print(f"  {line}", highlight=False)
    if found.same:
        console.print("[green]All runs are the same program, with the same weights and inputs.[/]", highlight=False)
    console.print(_runs(found.columns))
    for line in _causes(found, top):
        console.print(line, highlight=False)
    shown = sorted(found.lines, key=_worth)[:top]
    console.print(_values(found, shown))
    if len(found.lines) > top:
        console.print(f"{len(found.lines) - top} more values: --top {len(found.lines)}", highlight=False)
    for note in found.notes:
        console.print(f"note: {escape(note)}", style="yellow", highlight=False)


def _worth(line: Line) -> tuple[bool, float]:
    """Values of bad launches first, then those that differ most."""
    return line.level not in ("SUSPECT", "FAIL"), -max((one or 0.0 for one in line.differences), default=0.0)


def _runs(columns: Sequence[Column]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("run", overflow="fold")
    for name in ("verified", "first's bits", "differs by", "to float64"):
        table.add_column(name, justify="right")
    table.add_column("verdicts", overflow="fold")
    for column in columns:
        levels = (f"[{COLOURS[level]}]{count} {level}[/]" for level, count in sorted(column.coverage.levels.items()))
        table.add_row(
            escape(column.name if column.name == column.title else f"{column.name} ({column.title})"),
            f"{column.coverage.verified} of {column.coverage.launches}",
            "" if column.paired is None else f"{column.identical} of {column.paired}",
            _number(column.largest),
            _number(column.end_to_end),
            ", ".join(levels),
        )
    return table


def _causes(found: Several, top: int) -> Iterator[str]:
    wrong = found.causes
    for column, root in wrong[:top]:
        yield (
            f"[{COLOURS[root.level]}]{root.level}[/] {escape(column.name)} launch {root.seq} {escape(root.kernel)}: "
            f"{escape('; '.join(root.reasons))}"
        )
    if len(wrong) > top:
        yield f"{len(wrong) - top} more launches beyond legal arithmetic: --top {len(wrong)}"
    if not any(column.coverage.verified for column in found.columns):
        yield "[yellow]Nothing was verified[/]: record the runs with level='full'."
    elif not wrong:
        yield "No kernel's error is beyond what legal arithmetic gives."


def _values(found: Several, lines: Sequence[Line]) -> Table:
    """Errors against the graph in float64, or of the kernel on its own inputs."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    error = "error against the graph in float64" if found.with_truth else "error on the kernel's own inputs"
    table.add_column(f"{error}, relative L2", overflow="fold")
    for column in found.columns:
        table.add_column(escape(column.name), justify="right", overflow="fold")
    for line in lines:
        table.add_row(escape(line.name), *(_cell(line, number) for number in range(len(found.columns))))
    return table


def _cell(line: Line, number: int) -> str:
    side = line.sides[number]
    if side is None:
        return "–"
    return f"[{COLOURS[side.level]}]{_number(line.error(number)) or side.level}[/]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
