"""Several runs in one table: each against the first, what is bad told once, the worst exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from recorded import judge, recorded
from test_diff_report import Reader
from typer.testing import CliRunner

from torchport.cli.app import app
from torchport.numerics.compare.diff import FAULT, LEGAL, PROGRAMS_DIFFER, compare
from torchport.numerics.compare.several import Several, _names, several, several_as_json
from torchport.numerics.compare.several_html import several_page
from torchport.numerics.verdicts.measure import same_bits


def wrong(value: torch.Tensor) -> torch.Tensor:
    return value * 1.001


@pytest.fixture(scope="module")
def found() -> Several:
    first = recorded()
    others = [
        recorded(target="same"),
        recorded({"mm": wrong}, target="chip"),
        recorded(target="fused", fused=("abs_1",)),
        recorded({"exp": lambda value: value * torch.nan}, target="nan"),
    ]
    return several([compare(first, other, judge, truth=True) for other in others])


def test_each_run_is_a_column(found: Several) -> None:
    assert [column.title for column in found.columns] == ["cpu", "same", "chip", "fused", "nan"]
    assert [column.level for column in found.columns] == ["EXPECTED", "EXPECTED", "FAIL", "EXPECTED", "FAIL"]
    assert found.columns[0].paired is None and found.columns[1].identical == found.columns[1].paired
    assert found.columns[2].largest is not None and found.columns[2].largest > 1e-4
    assert found.columns[4].largest == float("inf")


def test_values_stand_beside_each_other(found: Several) -> None:
    names = [line.name for line in found.lines]
    assert len(names) == len(set(names)) and names.index("mm") < names.index("exp")
    line = found.lines[names.index("mm")]
    assert [side.level for side in line.sides if side is not None] == [
        "EXPECTED",
        "EXPECTED",
        "FAIL",
        "EXPECTED",
        "EXPECTED",
    ]
    assert line.identical == (None, True, False, True, True)
    assert line.differences[1] == 0 and line.differences[2] == pytest.approx(1e-3, rel=0.1)
    assert found.lines[names.index("abs_1")].sides[3] is None, "this run has no such value"
    assert found.lines[names.index("abs_1")].sides[1] is not None


def test_what_is_bad_is_told_once(found: Several) -> None:
    told = [(column.title, root.nodes) for column, root in found.causes]
    assert told == [("chip", ("mm",)), ("nan", ("exp",))]
    reference = recorded({"mm": wrong}, target="bad reference")
    both = several([compare(reference, recorded(target=name), judge) for name in ("x", "y")])
    assert [column.title for column, _ in both.causes] == ["bad reference"]


def test_the_worst_exit_status(found: Several) -> None:
    assert found.status(("FAIL",)) == FAULT
    assert found.status(()) == LEGAL
    other = several([compare(recorded(), recorded(seed=seed), judge) for seed in (0, 1)])
    assert other.status(("FAIL",)) == PROGRAMS_DIFFER and not other.same


def test_json_holds_every_comparison(found: Several) -> None:
    content = json.loads(json.dumps(several_as_json(found), allow_nan=False))
    assert [run["target"] for run in content["runs"]] == ["cpu", "same", "chip", "fused", "nan"]
    assert [diff["level"] for diff in content["diffs"]] == ["EXPECTED", "FAIL", "EXPECTED", "FAIL"]
    assert content["status"] == FAULT


def test_the_page_nests_and_escapes(found: Several) -> None:
    html = several_page(found)
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert {"programs", "runs", "causes", "waterfall", "values"} <= set(reader.ids)
    assert "<script>" not in html and "&lt;script&gt;" in html
    lines = [tag for tag, attributes in reader.tags if tag == "polyline"]
    assert len(lines) == len(found.columns)
    assert html.count("ringed") == 1 and 'class="local several-2 level-FAIL"' in html


def test_without_stored_elements_there_is_nothing_to_show() -> None:
    runs = [recorded(kept=False) for _ in range(3)]
    html = several_page(several([compare(runs[0], run, judge) for run in runs[1:]]))
    assert "Nothing to show" in html


def test_options_of_two_runs_are_refused() -> None:
    refused = CliRunner().invoke(app, ["diff", "a", "b", "c", "--junit", "x.xml"])
    assert refused.exit_code == 2 and "are for two runs" in refused.output


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [(0.0, -0.0, False), (float("nan"), float("nan"), True), (1.0, 1.0, True), (1.0, 1.0 + 2**-23, False)],
)
def test_same_bits(a: float, b: float, same: bool) -> None:
    one, other = torch.tensor([[a, 2.0], [3.0, 4.0]]), torch.tensor([[b, 2.0], [3.0, 4.0]])
    assert same_bits(one, other) is same and same_bits(one.t(), other.t()) is same
    assert not same_bits(one, other.double()) and same_bits(one[:0], other[:0])


def test_folders_of_one_name_are_told_apart() -> None:
    assert _names([Path("a/cpu"), Path("b/chip")]) == ["cpu", "chip"]
    assert _names([Path("a/cpu"), Path("b/cpu"), Path("a/cpu")]) == ["a/cpu", "b/cpu", "a/cpu"]
    assert _names([Path("a/cpu")] * 2) == ["cpu", "cpu"]
