"""Two jobs on as many ranks: each rank of one with the same rank of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from torchport.errors import RunError
from torchport.numerics.compare.diff import Diff, compare
from torchport.numerics.compare.kept_verdicts import KeptVerdicts
from torchport.numerics.compare.launch_verdict import Judge
from torchport.numerics.ranks.finding import Finding
from torchport.numerics.runs.ranks import RankRuns
from torchport.numerics.runs.reader import Run

__all__ = ["Advance", "compare_by_rank"]

Advance = Callable[[int, int, str], None]


def compare_by_rank(
    a: RankRuns,
    b: RankRuns,
    judge_of: Callable[[Run, Run], Judge],
    advance: Advance,
    kept: Mapping[str, KeptVerdicts] = MappingProxyType({}),
) -> Iterator[Finding]:
    """Compare each rank of ``b`` with that of ``a``, as ``torchport diff`` compares two runs.

    judge_of: gives what judges launches of two runs. kept: as of ``compare``.
    """
    for rank in sorted(a.runs.keys() & b.runs.keys()):
        one, other = a.runs[rank], b.runs[rank]
        if not any(launch.kind in ("kernel", "extern") for run in (one, other) for launch in run.launches):
            continue  # no compiled graph ran: collectives and parameters say all that was recorded
        try:
            diff = compare(one, other, judge_of(one, other), advance=advance, kept=kept)
        except RunError as error:
            yield Finding("not known", (rank,), "the runs", str(error), place=(4, rank))
            continue
        yield from _findings(rank, diff)


def _findings(rank: int, diff: Diff) -> Iterator[Finding]:
    place = (4, rank)
    wrong = [root for root in diff.roots if root.level == "FAIL"]
    for root in wrong:
        yield Finding("wrong", (rank,), root.kernel, "; ".join(root.reasons), None, root.run, root.seq, place)
    if not diff.programs.same:
        first = diff.programs.differences[0]
        text = f"{diff.programs.headline} First: {first.kind} {first.name}: {first.summary}"
        yield Finding("another call", (rank,), "the program", text, place=place)
    elif not wrong and diff.missing:
        yield Finding("not known", (rank,), "the runs", diff.missing[0], place=place)
    elif not wrong:
        same = [row for row in diff.rows if row.a is not None and row.b is not None]
        bits = sum(row.identical is True for row in same)
        text = f"{diff.programs.headline} {bits} of {len(same)} values hold the same bits"
        yield Finding("same" if bits == len(same) else "legal", (rank,), "the runs", text, place=place)
