"""``torchport bisect``: finds the first bad kernel and tells whether the fault depends on its block sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchport.cli.console import standard_output
from torchport.cli.model import load_model
from torchport.errors import OptionError
from torchport.numerics.runs.reader import Run

if TYPE_CHECKING:
    from torchport.precision.bisect import BisectResult

__all__ = ["bisect"]

_FOLLOWS = {
    "config": "the fault follows the configuration: another configuration does not have it",
    "kernel": "the fault follows the kernel: it is wrong with every configuration that was tried",
}


def bisect(
    a: str, b: Path | None, target: str, repeat: int, *, as_json: bool, train: bool = False, trust: bool = False
) -> int:
    """Search run ``b``, with run ``a`` as the reference. Returns 1 if a kernel is bad, 3 if none
    is and the runs are different programs, or were given other data.

    Without ``b``, search ``repeat`` runs of the model ``a`` on ``target``, with ``train`` also backward.

    ``trust``: as of ``Run.load``. Raises OptionError, RunError, TargetError.
    """
    from torchport.cli.working import working
    from torchport.numerics.compare.diff import FAULT, LEGAL, PROGRAMS_DIFFER
    from torchport.precision.bisect import of_model, of_runs

    if b is None and Path(a).is_dir():
        raise OptionError("two run folders are needed: torchport bisect A B; or a model, FILE.py:FUNCTION")
    with working("running" if b is None else "judging kernels") as work:

        def advance(done: int, total: int) -> None:
            work.at(done, total, "judging kernels")

        if b is not None:
            result = of_runs(Run.load(a, trust=trust), Run.load(b, trust=trust), advance=advance)
        else:
            result = of_model(*load_model(a), target, repeat, advance=advance, train=train)
    if as_json:
        print(json.dumps(result.as_json(), indent=1))
    else:
        show(result, b)
    if result.bad is not None:
        return FAULT
    return LEGAL if result.programs is None or result.programs.same else PROGRAMS_DIFFER


def show(result: BisectResult, run: Path | None, console: Any = None) -> None:
    """Print a result. ``run``: the folder of the searched run; None if it no longer exists."""
    from rich.markup import escape

    from torchport.cli.precision.program_lines import program_lines

    console = console or standard_output()

    def say(text: str) -> None:
        console.print(text, highlight=False)

    for line in () if result.programs is None else program_lines(result.programs):
        say(line)
    for reason, count in result.unverified.items():
        say(f"[yellow]{count} not verified[/]: {escape(reason)}")
    bad = result.bad
    if bad is None:
        say(f"No kernel is beyond legal arithmetic: {result.judged} launches judged in {result.runs} run(s).")
        return
    say(
        f"[red]{bad.level}[/] launch {bad.seq} {escape(bad.kernel)} on {escape(bad.target)} is the first bad kernel "
        f"({result.judged} launches judged)"
    )
    say(f"  computes {escape(', '.join(bad.nodes)) or 'no FX node'}" + (f" ({escape(bad.place)})" if bad.place else ""))
    for reason in bad.reasons:
        say(f"  {escape(reason)}")
    if bad.other is not None:
        say(f"  in A the same nodes are {bad.other}")
    if result.runs > 1:
        say(
            f"  bad in {result.hits} of {result.runs} runs"
            + (": the fault is intermittent" if result.hits < result.runs else "")
        )
    if bad.config:
        say(f"  configuration: {escape(bad.config)}")
    if result.tried:
        _show_trials(result, console)
    if result.command is not None:
        console.print("to avoid it:")
        console.print(f"  {escape(result.command)}", highlight=False, soft_wrap=True)
    if run is not None:
        say(f"next: torchport explain {escape(str(run))} {bad.seq}; torchport repro {escape(str(run))} {bad.seq}")


def _show_trials(result: BisectResult, console: Any) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table("run alone with", "verdict", box=SIMPLE_HEAD, show_edge=False)
    for trial in result.tried:
        table.add_row(escape(trial.config), escape(trial.level), style="red" if trial.bad else None)
    console.print(table)
    if result.follows:
        console.print(_FOLLOWS[result.follows])
    elif not result.tried[0].bad:
        console.print(
            "Run alone here, the kernel is right: the fault is intermittent, or needs the kernels that run before it."
        )
    else:
        console.print(
            "There is no other configuration to try, so it is not known whether the fault follows the configuration."
        )
