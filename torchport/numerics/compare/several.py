"""Several runs of one program in one table: each is compared with the first, the reference."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchport.numerics.compare.as_json import as_json
from torchport.numerics.compare.diff import FAULT, LEGAL, NOT_COMPARABLE, PROGRAMS_DIFFER, Coverage, Diff
from torchport.numerics.compare.rank import RootCause
from torchport.numerics.compare.rows import Row
from torchport.numerics.compare.sides import SideReport
from torchport.numerics.programs.provenance import title_of
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.verdict import worst_level

__all__ = ["FORMAT", "Column", "Line", "Several", "several", "several_as_json"]

FORMAT = "torchport.diff-several/1"
_GRAVITY = (FAULT, PROGRAMS_DIFFER, NOT_COMPARABLE, LEGAL)
"""Exit statuses, the worst first."""


@dataclass(frozen=True)
class Column:
    """One run beside the others.

    number: its place; 0 is the reference
    name: of its folder, and of those above it where two runs have one name
    title: its targets, and what they emulate
    run: the run
    coverage: how much of it was judged
    level: the worst level of its launches
    identical, paired: how many values have the reference's bits, of how many that both have; None of the reference
    largest: the value that differs most from the reference's, relative L2; None if no elements were stored
    end_to_end: the largest error of a value against the whole graph in float64; None without it
    diff: its comparison with the reference; None of the reference
    """

    number: int
    name: str
    title: str
    run: Run
    coverage: Coverage
    level: str
    identical: int | None
    paired: int | None
    largest: float | None
    end_to_end: float | None
    diff: Diff | None


@dataclass(frozen=True)
class Line:
    """One value of the model in all runs.

    row: a comparison that has it
    sides: each run's side, the reference first; None where a run kept no such value
    differences: relative L2 from the reference's value, by run; None where it is not known
    identical: whether all bits are those of the reference's value, by run; None where it is not known
    """

    row: Row
    sides: tuple[SideReport | None, ...]
    differences: tuple[float | None, ...]
    identical: tuple[bool | None, ...]

    @property
    def level(self) -> str:
        return worst_level(side.level for side in self.sides if side is not None)

    @property
    def name(self) -> str:
        """The value's FX node."""
        return self.row.node or self.row.other or ""

    def error(self, number: int) -> float | None:
        """The error of a run's value against the whole graph in float64, else of its kernel on its own inputs."""
        side = self.sides[number]
        return None if side is None else side.local if side.end_to_end is None else side.end_to_end


@dataclass(frozen=True)
class Several:
    """Runs beside each other. columns: the reference first. lines: values in the order of the model."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    with_truth: bool

    @property
    def level(self) -> str:
        """The worst level of all runs."""
        return worst_level(column.level for column in self.columns)

    @property
    def diffs(self) -> list[Diff]:
        """Each run's comparison with the reference."""
        return [column.diff for column in self.columns if column.diff is not None]

    @property
    def same(self) -> bool:
        """Whether all runs are of one program that was given the same data, and this is known."""
        return all(diff.programs.same and not diff.programs.unknown for diff in self.diffs)

    @property
    def causes(self) -> list[tuple[Column, RootCause]]:
        """Launches beyond legal arithmetic with the run that they are of; those of the reference once."""
        found: dict[tuple[int, int], tuple[Column, RootCause]] = {}
        for column in self.columns:
            for root in column.diff.roots if column.diff is not None else ():
                if not root.legal:
                    own = column.number if root.run == "B" else 0
                    found.setdefault((own, root.seq), (self.columns[own], root))
        return list(found.values())

    @property
    def notes(self) -> list[str]:
        """Remarks of all comparisons, with the runs' names."""
        first = self.columns[0].name
        notes = [
            f"{first if note.startswith('A: ') else column.name}: {note[3:]}" if note[:3] in ("A: ", "B: ") else note
            for column in self.columns
            for note in (column.diff.notes if column.diff is not None else ())
        ]
        return list(dict.fromkeys(notes))

    def status(self, failing: Collection[str]) -> int:
        """The worst exit status of the comparisons."""
        return min((diff.status(failing) for diff in self.diffs), key=_GRAVITY.index)


def several(diffs: Sequence[Diff]) -> Several:
    """Put comparisons of several runs with one reference beside each other. There is at least one."""
    first = diffs[0]
    names = _names([first.a.path, *(diff.b.path for diff in diffs)])
    columns = [_column(0, names[0], first.a, first)]
    columns += [_column(number, names[number], diff.b, diff) for number, diff in enumerate(diffs, 1)]
    return Several(tuple(columns), tuple(_lines(diffs)), first.with_truth)


def several_as_json(found: Several) -> dict[str, Any]:
    """All comparisons as plain JSON values.

    format: the schema
    status: the exit status if a FAIL is a fault
    level: the worst level
    runs: paths and targets, the reference first
    diffs: each run's comparison with the reference, as ``torchport diff --json`` writes it
    """
    return {
        "format": FORMAT,
        "status": found.status(("FAIL",)),
        "level": found.level,
        "runs": [{"path": str(column.run.path), "target": column.title} for column in found.columns],
        "diffs": [as_json(diff) for diff in found.diffs],
    }


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of those above them as tell different folders apart."""
    whole = [path.absolute() for path in paths]
    for depth in range(1, max(len(path.parts) for path in whole)):
        names = ["/".join(path.parts[-depth:]) for path in whole]
        if len(set(names)) == len(set(whole)):
            return names
    return [str(path) for path in whole]


def _column(number: int, name: str, run: Run, diff: Diff) -> Column:
    """``diff``: a comparison that has the run; its own if it is not the reference."""
    side, own = ("A", None) if number == 0 else ("B", diff)
    coverage = diff.coverage[side]
    rows = [row for row in diff.rows if row.a is not None and row.b is not None]
    errors = [one.end_to_end for row in diff.rows if (one := row.side(side)) is not None and one.end_to_end is not None]
    differences = [row.difference for row in rows if row.difference is not None]
    return Column(
        number,
        name,
        title_of(run),
        run,
        coverage,
        worst_level(level for level, count in coverage.levels.items() if count),
        sum(row.identical is True for row in rows) if own is not None else None,
        len(rows) if own is not None else None,
        max(differences, default=None) if own is not None else None,
        max(errors, default=None),
        own,
    )


def _lines(diffs: Sequence[Diff]) -> list[Line]:
    """Values in the order of the model: one that the reference lacks follows what its own run has before it."""
    found: dict[Any, dict[int, Row]] = {}
    order: list[Any] = []
    for number, diff in enumerate(diffs):
        place = 0
        for row in diff.rows:
            key = ("reference", row.position, row.node) if row.a is not None else ("", row.position, row.other)
            if key not in found:
                order.insert(place, key)
            place = order.index(key) + 1
            found.setdefault(key, {})[number] = row
    return [_line(found[key], len(diffs)) for key in order]


def _line(rows: Mapping[int, Row], count: int) -> Line:
    one = next(iter(rows.values()))
    others = [rows.get(number) for number in range(count)]
    return Line(
        one,
        (one.a, *(row.b if row is not None else None for row in others)),
        (None, *(row.difference if row is not None else None for row in others)),
        (None, *(row.identical if row is not None else None for row in others)),
    )
