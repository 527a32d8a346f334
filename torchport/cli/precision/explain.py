"""``torchport explain``: explains one kernel of a recorded run in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchport.cli.console import standard_output
from torchport.cli.levels import COLOURS
from torchport.numerics.runs.reader import Run

if TYPE_CHECKING:
    from torchport.precision.explain import Explanation

__all__ = ["explain", "show"]


def explain(path: Path, kernel: str, launch: int | None, *, as_json: bool, trust: bool = False) -> None:
    """Judge the kernel and print the reasons. ``trust``: as of ``Run.load``. Raises OptionError and RunError."""
    from torchport.precision.case import find
    from torchport.precision.explain import explain_launch

    run = Run.load(path, trust=trust)
    explanation = explain_launch(run, find(run, kernel, launch))
    if as_json:
        print(json.dumps(explanation.as_json(), indent=1))
    else:
        show(explanation)


def show(explanation: Explanation, console: Any = None) -> None:
    """Print an explanation as a panel."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    parts: list[Text] = []

    def part(title: str, lines: tuple[str, ...]) -> None:
        if lines:
            parts.append(Text(f"{title}", style="bold"))
            parts.extend(Text(f"  {line}") for line in lines)

    part("It computes", (", ".join(explanation.computes) or "no FX node",))
    part("for", explanation.lines)
    cause = f" ({explanation.cause})" if explanation.cause else ""
    judged = f", judged against {explanation.method}" if explanation.method else ""
    part("Verdict", (f"{explanation.level}{cause}{judged}",))
    part("What is wrong" if explanation.level in ("SUSPECT", "FAIL") else "Noted", explanation.failed)
    part("Where", explanation.where)
    part(
        "Worst elements",
        tuple(f"{e.argument}{list(e.index)}: {e.value:.9g} instead of {e.exact:.9g}" for e in explanation.worst),
    )
    part("Why", explanation.why)
    part("What it means", (explanation.meaning,))
    part("What to do", explanation.advice)
    config = f", {explanation.config}" if explanation.config else ""
    title = Text(f"launch {explanation.seq} {explanation.kernel} on {explanation.target}{config}")
    (console or standard_output()).print(Panel(Group(*parts), title=title, border_style=COLOURS[explanation.level]))
