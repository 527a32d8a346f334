"""The bar of long commands: what is done, of how much, and the time left; nothing where there is no terminal."""

from __future__ import annotations

import io
import re
from itertools import count

import pytest
from recorded import judge, recorded
from rich import progress
from rich.console import Console

from torchport.cli.working import working
from torchport.numerics.compare.diff import compare


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seconds pass between two looks at the clock."""
    ticks = count(0.0, 3.0)
    original = progress.Progress.__init__

    def init(self: progress.Progress, *columns: object, **more: object) -> None:
        original(self, *columns, **more, get_time=lambda: next(ticks), auto_refresh=False)  # type: ignore[arg-type]

    monkeypatch.setattr(progress.Progress, "__init__", init)


def screen() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None, legacy_windows=False)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[?\d;]*\w", "", console.file.getvalue())


def test_the_bar_says_what_is_done_and_how_long_it_takes(clock: None) -> None:
    console = screen()
    with working("judging [kernels]", console=console) as work:
        for done in range(1, 5):
            work.at(done, 8)
            work._progress.refresh()
        work.at(5, 8, "comparing values")
        work._progress.refresh()
    text = text_of(console)
    assert "judging [kernels]" in text and "4/8" in text
    assert re.search(r"comparing values .*5/8 \d:\d\d:\d\d left", text)


def test_what_begins_anew_counts_from_the_beginning(clock: None) -> None:
    console = screen()
    with working("capturing the model", console=console) as work:
        work.begin("compiling kernels", 3)
        work.step()
        work.step()
        work._progress.refresh()
        work.say("FAIL [one]")
    text = text_of(console)
    assert re.search(r"compiling kernels .*2/3", text)
    assert "FAIL [one]" in text


def test_nothing_is_shown_where_there_is_no_terminal() -> None:
    console = Console(file=io.StringIO())
    with working("judging kernels", 2, console=console) as work:
        work.step()
    assert text_of(console).strip() == ""


@pytest.mark.parametrize("truth", [False, True])
def test_a_comparison_says_how_far_it_is_and_ends_with_all_of_it(truth: bool) -> None:
    told: list[tuple[int, int, str]] = []
    faulty = recorded({"mm": lambda value: value * 1.001})
    compare(recorded(), faulty, judge, truth=truth, advance=lambda *step: told.append(step))
    assert [done for done, _, _ in told[:-1]] == list(range(1, len(told)))
    assert all(done <= total for done, total, _ in told)
    assert told[-1][0] == told[-1][1]
    assert {what for _, _, what in told} == {"judging kernels", "comparing values"}
