"""Verdicts on recorded operators: their FX nodes in float64 against what they gave."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from recorded import Fault, recorded

from torchport.numerics.judging import judge
from torchport.numerics.replay import NotReplayable
from torchport.numerics.truth import Call, calls_of


def operators(faults: dict[str, Fault] | None = None) -> Call:
    """A run whose launches are operators of aten."""
    run = recorded(faults)
    launches = [replace(one, kernel=None, operation=f"aten.{one.kernel}.out") for one in run.launches[1:]]
    (call,) = calls_of(replace(run, launches=[run.launches[0], *launches]))
    return call


def test_operators_that_round_legally_are_expected() -> None:
    call = operators()
    levels = {one.nodes[0]: judge(call, one).level for one in call.launches}
    assert set(levels.values()) <= {"EXACT", "EXPECTED"}
    assert levels["mm"] == "EXPECTED"


@pytest.mark.parametrize("part", [1e-4, -1e-4])
def test_a_product_that_is_off_everywhere_fails(part: float) -> None:
    call = operators({"mm": lambda value: value * (1 + part)})
    found = {one.nodes[0]: judge(call, one) for one in call.launches}
    assert found["mm"].level == "FAIL"
    assert found["mm"].method == "FX nodes in float64"
    assert any("biased" in reason for reason in found["mm"].reasons)
    assert {name for name, one in found.items() if one.level in ("SUSPECT", "FAIL")} == {"mm"}


def test_one_wrong_element_fails() -> None:
    def wrong(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value[3, 5] += 1e-3
        return value

    call = operators({"mm_1": wrong})
    (verdict,) = [judge(call, one) for one in call.launches if one.nodes == ("mm_1",)]
    assert verdict.level == "FAIL"
    errors = verdict.tensors[0].errors
    assert errors is not None
    assert errors.worst[0][0] == 3 * 16 + 5


def test_what_reads_nothing_that_the_graph_knows_is_not_judged() -> None:
    call = operators()
    launch = call.launches[0]
    unknown = tuple(replace(arg, node=None, before=None) if arg.role == "in" else arg for arg in launch.args)
    with pytest.raises(NotReplayable, match="nothing that it reads"):
        judge(call, replace(launch, args=unknown))
