"""``torchport.explain`` names file, line and operator of each graph break."""

from __future__ import annotations

import linecache
from pathlib import Path

import pytest
import torch

import torchport
from torchport.runtime.graph_breaks import parse

HERE = Path(__file__)


def helper(x: torch.Tensor) -> torch.Tensor:
    torch._dynamo.graph_break()
    return x * 2


def branching(x: torch.Tensor) -> torch.Tensor:
    y = helper(x)
    if y.sum() > 0:
        y = y + 1
    return y * int(y.sum().item()) + torch.nonzero(y).sum()


def looping(x: torch.Tensor) -> torch.Tensor:
    for _ in range(2):
        print(end="")
        x = x + 1
    return x


def line_of(code: str) -> str:
    """``file:line`` of the first line of this file that is ``code``."""
    lines = linecache.getlines(str(HERE))
    place = HERE.relative_to(Path.cwd()) if HERE.is_relative_to(Path.cwd()) else HERE
    return f"{place}:{[line.strip() for line in lines].index(code) + 1}"


def test_each_break_has_its_place_and_operator() -> None:
    report = torchport.explain(branching, torch.ones(4))
    found = [(break_.location, break_.operator, break_.code) for break_ in report.graph_breaks]
    wanted = [
        ("torch._dynamo.graph_break()", "torch._dynamo.graph_break"),
        ("if y.sum() > 0:", "Tensor.__bool__"),
        ("return y * int(y.sum().item()) + torch.nonzero(y).sum()", "Tensor.item"),
        ("return y * int(y.sum().item()) + torch.nonzero(y).sum()", "aten.nonzero.default"),
    ]
    assert found == [(line_of(code), operator, code) for code, operator in wanted]
    assert f"graph break at {line_of('if y.sum() > 0:')}: Data-dependent branching [Tensor.__bool__]" in str(report)


def test_a_function_left_to_python_is_reported_though_it_has_no_graph() -> None:
    report = torchport.explain(looping, torch.ones(4))
    assert not report.graphs
    (found,) = report.graph_breaks
    assert (found.location, found.operator) == (line_of('print(end="")'), "print")
    assert "graph break in loop" in found.reason


def test_a_second_report_names_them_again() -> None:
    first, second = (torchport.explain(helper, torch.ones(4)).graph_breaks for _ in range(2))
    assert first == second != ()


@pytest.mark.parametrize("text", ["Graph Break Reason: something new", "something new\nand more", "something new"])
def test_a_report_of_another_form_is_kept(text: str) -> None:
    found = parse(text)
    assert (found.reason, found.location, found.operator) == ("something new", None, None)
