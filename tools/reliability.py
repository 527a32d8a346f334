"""What torchport does when processes are killed, disks are full, and machines are odd.

    python tools/reliability.py                       # everything, about an hour on 2 cores
    python tools/reliability.py --quick               # each case a few times
    python tools/reliability.py --only killed,ctrl-c

Prints a table; the exit status is 1 if anything was lost, wrong, or ended by a signal. docs/reliability.md has the
figures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from reliability_cases.cases import CASES, Case, Count
from rich.console import Console
from rich.table import Table


def main() -> int:
    """Run the cases that were asked for; returns the exit status."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="each case a few times")
    parser.add_argument("--times", type=int, help="how often each case is done, instead of its own number")
    parser.add_argument("--only", default=",".join(names), help="cases, with commas between them (default: all)")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"no case is called {', '.join(unknown)}; there are {', '.join(names)}")
    console = Console()
    table = Table("case", "what", "tried", "right", "clear error", "bad", "seconds", "notes")
    bad = []
    for case in CASES:
        if case.name in wanted:
            started = time.monotonic()
            count = _run(case, arguments.times or (case.quick if arguments.quick else case.times))
            figures = map(str, (count.tried, count.right, count.refused, len(count.bad)))
            table.add_row(case.name, case.what, *figures, f"{time.monotonic() - started:.0f}", "; ".join(count.notes))
            bad += [f"{case.name}: {line}" for line in count.bad]
    console.print(table)
    for line in bad:
        console.print(line, markup=False, soft_wrap=True)
    return 1 if bad else 0


def _run(case: Case, times: int) -> Count:
    count = Count()
    with tempfile.TemporaryDirectory(prefix="torchport-reliability-") as folder:
        for count in case.run(Path(folder), times):
            progress = f"{case.name}: {count.tried} tried, {len(count.bad)} bad"
            print(progress, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
    return count


if __name__ == "__main__":
    sys.exit(main())
