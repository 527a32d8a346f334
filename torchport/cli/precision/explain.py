"""``torchport explain``: one kernel of a recorded run, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchport.numerics.runs.reader import Run

if TYPE_CHECKING:
    from torchport.precision.explain import Explanation

__all__ = ["explain", "show"]

_COLOURS = {"EXACT": "green", "EXPECTED": "green", "UNVERIFIED": "yellow", "SUSPECT": "magenta", "FAIL": "red"}


def explain(path: Path, kernel: str, launch: int | None, *, as_json: bool) -> None:
    """Judge the kernel and print why it is what it is. Raises OptionError and RunError."""
    from torchport.precision.case import find
    from torchport.precision.explain import explain_launch

    run = Run.load(path)
    found = explain_launch(run, find(run, kernel, launch))
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        show(found)


def show(found: Explanation, console: Any = None) -> None:
    """A panel."""
    from rich.console import Console, Group
    from rich.panel import Panel
    from rich.text import Text

    parts: list[Text] = []

    def part(title: str, lines: tuple[str, ...]) -> None:
        if lines:
            parts.append(Text(f"{title}", style="bold"))
            parts.extend(Text(f"  {line}") for line in lines)

    part("It computes", (", ".join(found.computes) or "no FX node",))
    part("for", found.lines)
    cause = f" ({found.cause})" if found.cause else ""
    judged = f", judged against {found.method}" if found.method else ""
    part("Verdict", (f"{found.level}{cause}{judged}",))
    part("What is wrong" if found.level in ("SUSPECT", "FAIL") else "Noted", found.failed)
    part("Where", found.where)
    part(
        "Worst elements",
        tuple(f"{one.argument}{list(one.index)}: {one.value:.9g} instead of {one.exact:.9g}" for one in found.worst),
    )
    part("Why", found.why)
    part("What it means", (found.meaning,))
    part("What to do", found.advice)
    config = f", {found.config}" if found.config else ""
    title = Text(f"launch {found.seq} {found.kernel} on {found.target}{config}")
    (console or Console()).print(Panel(Group(*parts), title=title, border_style=_COLOURS[found.level]))
