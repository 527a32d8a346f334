"""A progress bar with the time that is left, for commands that take long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torchport.cli.console import standard_error

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TaskID

__all__ = ["Work", "working"]


class Work:
    """The bar of one command. Where standard error is no terminal it shows nothing."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def at(self, done: int, total: int, what: str | None = None) -> None:
        """``done`` of ``total`` steps are done. ``what``: what is done now, if that changes."""
        self._progress.update(self._task, completed=done, total=total, description=what)

    def step(self) -> None:
        """One more step is done."""
        self._progress.advance(self._task)

    def name(self, what: str) -> None:
        """What is done now."""
        self._progress.update(self._task, description=what)

    def begin(self, what: str, total: int | None = None) -> None:
        """Something else begins, of ``total`` steps; the time left counts from here."""
        self._progress.reset(self._task, description=what, total=total)

    def say(self, text: str) -> None:
        """Print a line above the bar, in red."""
        self._progress.console.print(text, style="red", markup=False)


@contextmanager
def working(
    what: str, total: int | None = None, *, console: Console | None = None, stays: bool = False
) -> Iterator[Work]:
    """A bar for what happens in the context, on standard error.

    what: what is done
    total: number of steps; None if it is not known yet
    console: instead of standard error
    stays: whether the bar stays when the work is done
    """
    from rich.progress import Progress

    console = console or standard_error()
    with Progress(*_columns(), console=console, transient=not stays) as progress:
        yield Work(progress, progress.add_task(what, total=total))


def _columns() -> tuple[ProgressColumn, ...]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class TimeLeft(ProgressColumn):
        """``0:00:12 left``; the time that it took, once it is done."""

        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            if task.finished:
                return TimeElapsedColumn().render(task)
            if task.time_remaining is None:
                return Text("")
            return TimeRemainingColumn().render(task) + Text(" left", style="progress.remaining")

    return (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeLeft())
