"""``torchport bisect``: the first bad kernel, and whether the fault follows its block sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchport.cli.model import load_model
from torchport.errors import OptionError
from torchport.numerics.runs.reader import Run

if TYPE_CHECKING:
    from torchport.precision.bisect import BisectResult

__all__ = ["bisect"]

_FOLLOWS = {
    "config": "the fault follows the configuration: not every other one has it",
    "kernel": "the fault follows the kernel: it is wrong with every configuration tried",
}


def bisect(a: str, b: Path | None, target: str, repeat: int, *, as_json: bool, train: bool = False) -> int:
    """Search run ``b``, or run the model ``a`` (with ``train`` backward, too) on ``target`` and search that. Returns 1
    where a kernel is bad.

    Raises OptionError, RunError, TargetError.
    """
    from rich.console import Console
    from rich.progress import Progress

    from torchport.precision.bisect import of_model, of_runs

    if b is None and Path(a).is_dir():
        raise OptionError("two run folders are needed: torchport bisect A B; or a model, FILE.py:FUNCTION")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("running" if b is None else "judging kernels", total=None)

        def advance(done: int, all_: int) -> None:
            progress.update(task, description="judging kernels", completed=done, total=all_)

        if b is not None:
            found = of_runs(Run.load(a), Run.load(b), advance=advance)
        else:
            found = of_model(*load_model(a), target, repeat, advance=advance, train=train)
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        show(found, None if b is None else b)
    return int(found.bad is not None)


def show(found: BisectResult, run: Path | None, console: Any = None) -> None:
    """Say what was found. ``run``: the folder it is in, None where that is gone."""
    from rich.console import Console
    from rich.markup import escape

    console = console or Console()

    def say(text: str) -> None:
        console.print(text, highlight=False)

    for reason, count in found.unverified.items():
        say(f"[yellow]{count} not verified[/]: {escape(reason)}")
    bad = found.bad
    if bad is None:
        say(f"No kernel is beyond legal arithmetic: {found.judged} launches judged in {found.runs} run(s).")
        return
    say(
        f"[red]{bad.level}[/] launch {bad.seq} {escape(bad.kernel)} on {escape(bad.target)} is the first bad kernel "
        f"({found.judged} launches judged)"
    )
    say(f"  computes {escape(', '.join(bad.nodes)) or 'no FX node'}" + (f" ({escape(bad.place)})" if bad.place else ""))
    for reason in bad.reasons:
        say(f"  {escape(reason)}")
    if bad.other is not None:
        say(f"  in A the same nodes are {bad.other}")
    if found.runs > 1:
        say(f"  bad in {found.hits} of {found.runs} runs" + (": it comes and goes" if found.hits < found.runs else ""))
    if bad.config:
        say(f"  configuration: {escape(bad.config)}")
    if found.tried:
        _tried(found, console)
    if found.command is not None:
        console.print("to avoid it:")
        console.print(f"  {escape(found.command)}", highlight=False, soft_wrap=True)
    if run is not None:
        say(f"next: torchport explain {escape(str(run))} {bad.seq}; torchport repro {escape(str(run))} {bad.seq}")


def _tried(found: BisectResult, console: Any) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table("run alone with", "verdict", box=SIMPLE_HEAD, show_edge=False)
    for one in found.tried:
        table.add_row(escape(one.config), escape(one.level), style="red" if one.bad else None)
    console.print(table)
    if found.follows:
        console.print(_FOLLOWS[found.follows])
    elif not found.tried[0].bad:
        console.print("Run alone it is right here: the fault comes and goes, or needs what runs around the kernel.")
    else:
        console.print("It has no other configuration that can be tried: whether the fault follows it is not known.")
