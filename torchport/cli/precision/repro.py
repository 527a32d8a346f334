"""``torchport repro``: writes a folder that reproduces one kernel of a recorded run on its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from torchport.cli.console import standard_output
from torchport.numerics.runs.reader import Run

if TYPE_CHECKING:
    from torchport.precision.reproduce import Reproduction

__all__ = ["repro"]


def repro(path: Path, kernel: str, folder: Path | None, launch: int | None, trials: int, *, trust: bool) -> None:
    """Write the folder and describe it. ``trust``: as of ``Run.load``.

    Raises OptionError, RunError, NotReplayable, OSError.
    """
    from torchport.cli.working import working
    from torchport.precision.case import case_of, find
    from torchport.precision.reproduce import reproduce, write_case

    run = Run.load(path, trust=trust)
    recorded = find(run, kernel, launch)
    case = case_of(run, recorded)
    folder = folder or Path(f"repro-{re.sub(r'[^A-Za-z0-9_]', '_', case.function)}-{recorded.seq}")
    with working("shrinking", trials) as work:
        reproduction = reproduce(case, trials, work.step)
    write_case(folder, reproduction, str(path), recorded.seq)
    _show(reproduction, folder, recorded.seq)


def _show(reproduction: Reproduction, folder: Path, seq: int) -> None:
    from rich.markup import escape

    console = standard_output()
    case, verdict = reproduction.case, reproduction.found
    gate = f" by the gate {verdict.gate}" if verdict.gate else ""
    console.print(
        f"launch {seq} {escape(case.function)} of {escape(case.target)}: {verdict.level}{gate}", highlight=False
    )
    if reproduction.target is not None:
        console.print(f"reproduced on {reproduction.target}", highlight=False)
    else:
        console.print("[yellow]not reproduced here[/]: the folder holds the recorded results", highlight=False)
    for note in reproduction.notes:
        console.print(f"  {escape(note)}", highlight=False)
    for name, before, after in (
        ("programs", reproduction.before.programs, reproduction.after.programs),
        ("nonzero elements", reproduction.before.elements, reproduction.after.elements),
        ("bytes", reproduction.before.bytes, reproduction.after.bytes),
    ):
        console.print(f"  {name}: {before} -> {after}", highlight=False)
    console.print(f"{reproduction.trials} replays; run it: python {escape(str(folder / 'run.py'))}", highlight=False)
