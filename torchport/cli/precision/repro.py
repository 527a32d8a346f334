"""``torchport repro``: a folder that reproduces one kernel of a recorded run alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torchport.numerics.runs.reader import Run

if TYPE_CHECKING:
    from torchport.precision.reproduce import Reproduction

__all__ = ["repro"]


def repro(path: Path, kernel: str, folder: Path | None, launch: int | None, trials: int) -> None:
    """Write the folder and say what is in it. Raises OptionError, RunError, NotReplayable, OSError."""
    from rich.console import Console
    from rich.progress import Progress

    from torchport.precision.case import case_of, find
    from torchport.precision.reproduce import reproduce, write_case

    run = Run.load(path)
    chosen = find(run, kernel, launch)
    case = case_of(run, chosen)
    folder = folder or Path(f"repro-{case.function}-{chosen.seq}")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("shrinking", total=trials)
        made = reproduce(case, trials, lambda: progress.advance(task))
    write_case(folder, made, str(path), chosen.seq)
    _show(made, folder, chosen.seq)


def _show(made: Reproduction, folder: Path, seq: int) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    case, found = made.case, made.found
    gate = f" by the gate {found.gate}" if found.gate else ""
    console.print(
        f"launch {seq} {escape(case.function)} of {escape(case.target)}: {found.level}{gate}", highlight=False
    )
    if made.target is not None:
        console.print(f"reproduced on {made.target}", highlight=False)
    else:
        console.print("[yellow]not reproduced here[/]: the folder holds the recorded results", highlight=False)
    for note in made.notes:
        console.print(f"  {escape(note)}", highlight=False)
    for what, one, other in (
        ("programs", made.before.programs, made.after.programs),
        ("elements that are not zero", made.before.elements, made.after.elements),
        ("bytes", made.before.bytes, made.after.bytes),
    ):
        console.print(f"  {what}: {one} -> {other}", highlight=False)
    console.print(f"{made.trials} replays; run it: python {escape(str(folder / 'run.py'))}", highlight=False)
