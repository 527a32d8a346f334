"""``torchport diff`` where ranks are compared: which rank, which kernel or collective, legal or a fault."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchport.arithmetic.profile import Profile
from torchport.cli.console import standard_output
from torchport.cli.working import working
from torchport.errors import OptionError, RunError
from torchport.files import write_whole
from torchport.numerics.compare.diff import NOT_COMPARABLE
from torchport.numerics.compare.launch_verdict import Judge
from torchport.numerics.ranks.as_json import as_json
from torchport.numerics.ranks.diff import RanksDiff, compare_jobs, compare_ranks
from torchport.numerics.ranks.finding import Finding, listed
from torchport.numerics.runs.ranks import RankRuns, is_ranks
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.judge import judge

__all__ = ["diff_ranks", "show_ranks"]

_TEXTS = 10
_COLOURS = {"same": "green", "legal": "green", "not known": "yellow", "another call": "magenta"}


def diff_ranks(
    a: Path,
    b: Path | None,
    json_file: Path | None,
    top: int,
    profiles: tuple[str | None, str | None] = (None, None),
    *,
    trust: bool = False,
) -> int:
    """Compare the ranks of one job with each other, or two jobs, and show the result. Returns the exit status.

    b: the other job, or the run of a single process. profiles: as of ``torchport diff``.

    Raises OptionError for invalid values, OSError.
    """
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise OptionError(f"cannot write {json_file}: there is no folder {json_file.absolute().parent}")
    declared = [Profile.load(name) if name is not None else None for name in profiles]
    try:
        jobs = [_load(path, trust=trust) for path in (a, b) if path is not None]
    except RunError as error:
        print(f"not comparable: {error}", file=sys.stderr)
        return NOT_COMPARABLE
    if len(jobs) == 1:
        launches = sum(one.kind in ("kernel", "extern") for run in jobs[0].runs.values() for one in run.launches)
        with working("judging kernels", launches) as work:
            result = compare_ranks(jobs[0], lambda call, launch: judge(call, launch, declared[0]), work.step)
    else:

        def judge_of(one: Run, other: Run) -> Judge:
            return lambda call, launch: judge(call, launch, declared[int(call.run is other)])

        with working("comparing jobs") as work:
            result = compare_jobs(jobs[0], jobs[1], judge_of, work.at)
    return finish(result, json_file, top)


def _load(path: Path, *, trust: bool) -> RankRuns:
    return RankRuns.load(path, trust=trust) if is_ranks(path) else RankRuns.of(Run.load(path, trust=trust))


def finish(result: RanksDiff, json_file: Path | None, top: int) -> int:
    """Show and write a result. Returns the exit status. Raises OSError."""
    show_ranks(result, top)
    if json_file is not None:
        write_whole(json_file, (json.dumps(as_json(result), indent=1, allow_nan=False) + "\n").encode())
    return result.status


def show_ranks(diff: RanksDiff, top: int, console: Console | None = None) -> None:
    """Print the answer, the first ``top`` findings, worst first, and what could not be judged."""
    console = console or standard_output()
    console.print(escape(diff.headline), highlight=False, style="red" if diff.status == 1 else None)
    for name, job in diff.jobs.items():
        who = f"{name} " if name else ""
        console.print(f"{who}{escape(str(job.path))}: {len(job.runs)} of {job.world_size} ranks", highlight=False)
    console.print(", ".join(f"[{_COLOURS.get(word, 'red')}]{count} {word}[/]" for word, count in diff.counts.items()))
    for rank, levels in diff.coverage.items():
        counts = ", ".join(f"{count} {level}" for level, count in sorted(levels.items()))
        if counts:
            console.print(f"rank {rank}: launches of kernels and operators: {counts}", highlight=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("rank", "kernel or collective", "line", "verdict", "what is the case"):
        table.add_column(name, overflow="fold")
    for one in diff.findings[:top]:
        table.add_row(*map(escape, _cells(one)), style="red" if one.is_fault else None)
    console.print(table)
    if (more := len(diff.findings) - top) > 0:
        console.print(f"{more} more: --top {len(diff.findings)}", highlight=False)
    for text in (*_first(diff.missing), *(f"note: {note}" for note in _first(diff.notes))):
        console.print(escape(text), style="yellow", highlight=False)


def _first(texts: Sequence[str]) -> list[str]:
    """The first texts, and how many more there are: --json has all."""
    more = len(texts) - _TEXTS
    return [*texts[:_TEXTS], *([f"and {more} more: --json has all"] if more > 0 else [])]


def _cells(one: Finding) -> tuple[str, ...]:
    ranks = listed(one.ranks).split(" ", 1)[1] if one.ranks else "all"
    line = f"{Path(one.source['file']).name}:{one.source['line']}" if one.source else ""
    return f"{one.run} {ranks}".strip(), one.what, line, one.verdict, one.sentence
