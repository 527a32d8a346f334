"""``torchport diff`` where ranks are compared: which rank, which kernel or collective, legal or a fault."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchport.errors import RunError
from torchport.files import write_whole
from torchport.numerics.compare.diff import NOT_COMPARABLE
from torchport.numerics.ranks.as_json import as_json
from torchport.numerics.ranks.diff import RanksDiff, compare_ranks
from torchport.numerics.ranks.finding import Finding, listed
from torchport.numerics.runs.ranks import RankRuns

__all__ = ["diff_ranks", "show_ranks"]

_COLOURS = {"same": "green", "legal": "green", "not known": "yellow", "another call": "magenta"}


def diff_ranks(path: Path, json_file: Path | None, top: int, *, trust: bool = False) -> int:
    """Compare the ranks of one job with each other, and show the result. Returns the exit status."""
    try:
        result = compare_ranks(RankRuns.load(path, trust=trust))
    except RunError as error:
        print(f"not comparable: {error}", file=sys.stderr)
        return NOT_COMPARABLE
    return finish(result, json_file, top)


def finish(result: RanksDiff, json_file: Path | None, top: int) -> int:
    """Show and write a result. Returns the exit status. Raises OSError."""
    show_ranks(result, top)
    if json_file is not None:
        write_whole(json_file, (json.dumps(as_json(result), indent=1, allow_nan=False) + "\n").encode())
    return result.status


def show_ranks(diff: RanksDiff, top: int, console: Console | None = None) -> None:
    """Print the answer, the first ``top`` findings, worst first, and what could not be judged."""
    console = console or Console()
    console.print(escape(diff.headline), highlight=False, style="red" if diff.status == 1 else None)
    for name, job in diff.jobs.items():
        who = f"{name} " if name else ""
        console.print(f"{who}{escape(str(job.path))}: {len(job.runs)} of {job.world_size} ranks", highlight=False)
    console.print(", ".join(f"[{_COLOURS.get(word, 'red')}]{count} {word}[/]" for word, count in diff.counts.items()))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("rank", "kernel or collective", "line", "verdict", "what is the case"):
        table.add_column(name, overflow="fold")
    for one in diff.findings[:top]:
        table.add_row(*map(escape, _cells(one)), style="red" if one.is_fault else None)
    console.print(table)
    if (more := len(diff.findings) - top) > 0:
        console.print(f"{more} more: --top {len(diff.findings)}", highlight=False)
    for text in (*diff.missing, *(f"note: {note}" for note in diff.notes)):
        console.print(escape(text), style="yellow", highlight=False)


def _cells(one: Finding) -> tuple[str, ...]:
    ranks = listed(one.ranks).split(" ", 1)[1] if one.ranks else "all"
    line = f"{Path(one.source['file']).name}:{one.source['line']}" if one.source else ""
    return f"{one.run} {ranks}".strip(), one.what, line, one.verdict, one.sentence
