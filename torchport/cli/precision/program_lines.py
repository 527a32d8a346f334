"""What differs between two runs as programs, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.markup import escape

from torchport.numerics.programs.difference import Difference, Programs

__all__ = ["program_lines"]

_DIFFERENCES, _SHOWN, _DIFF_LINES = 20, 6, 24
"""How many differences of programs are listed, how many of these with their diff, and how much of it."""


def program_lines(programs: Programs, missing: Sequence[str] = ()) -> Iterator[str]:
    """Whether the programs are the same; what differs between them; what they were recorded under. In rich's markup.

    missing: what was not recorded, so that a run cannot be judged
    """
    yield f"[{'green' if programs.same else 'bold red'}]{escape(programs.headline)}[/]"
    for number, one in enumerate(programs.differences):
        if number == _DIFFERENCES:
            yield f"  ... and {len(programs.differences) - number} more (--json and --html have all)"
            break
        yield from _difference_lines(one, number)
    for reason in missing:
        yield f"[bold yellow]Not comparable[/]: {escape(reason)}"
    for condition in programs.conditions:
        if condition.differs:
            yield f"  {escape(condition.what)}: {escape(_cut(condition.a))} and {escape(_cut(condition.b))}"


def _difference_lines(one: Difference, number: int) -> Iterator[str]:
    named = (
        one.summary if one.summary.startswith((one.name, f"{one.kind} {one.name}")) else f"{one.name}: {one.summary}"
    )
    yield f"  [red]{one.kind}[/] {escape(named.removeprefix(f'{one.kind} '))}"
    for place in one.places:
        yield f"      {escape(place)}"
    if number < _SHOWN:
        for line in one.diff[:_DIFF_LINES]:
            colour = {"-": "red", "+": "green"}.get(line[:1])
            yield f"      [{colour}]{escape(line)}[/]" if colour else f"      {escape(line)}"
        if len(one.diff) > _DIFF_LINES:
            yield f"      ... {len(one.diff) - _DIFF_LINES} more lines"


def _cut(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."
