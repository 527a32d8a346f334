"""The judge of the operation tests: backends that are slightly wrong must be found out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from inputs import every_magnitude
from opcheck import Op, check, spacing

Change = Callable[[torch.Tensor], torch.Tensor]


def backend_with(change: Change) -> Any:
    """A Dynamo backend that runs the graph in eager and changes its first result."""

    def compile_graph(gm: torch.fx.GraphModule, example_inputs: list[torch.Tensor]) -> Callable[..., Any]:
        def run(*args: torch.Tensor) -> Any:
            first, *rest = gm(*args)
            return (change(first), *rest)

        return run

    return compile_graph


def two_ulps(x: torch.Tensor) -> torch.Tensor:
    return torch.nextafter(torch.nextafter(x, torch.tensor(math.inf)), torch.tensor(math.inf))


def at(index: int, value: float) -> Change:
    def change(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x.view(-1)[index] = value
        return x

    return change


FAULTS: dict[str, Change] = {
    "two ulps": two_ulps,
    "NaN where a number is": at(5, math.nan),
    "a number where NaN is": at(24, 1.0),
    "inf saturated": at(11, torch.finfo(torch.float32).max),
    "a wrong last element": at(-1, 123.0),
    "sign of zero": at(12, 0.0),
    "flushed subnormals": lambda x: torch.where(x.abs() < torch.finfo(torch.float32).tiny, torch.zeros_like(x), x),
}


def test_eager_passes() -> None:
    check({"identity": Op(lambda x: x * 1.0, ulps=0)}, (every_magnitude(torch.float32),), "eager")


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(name: str) -> None:
    with pytest.raises(AssertionError, match="identity"):
        check(
            {"identity": Op(lambda x: x * 1.0, ulps=0)}, (every_magnitude(torch.float32),), backend_with(FAULTS[name])
        )


def test_exact_sign_of_zero() -> None:
    loses_sign = {"sum": Op(lambda x: x + 0.0, ulps=0, exact_zero=True, exact=lambda x: x * 1.0)}  # -0.0 + 0.0 is 0.0
    inputs = (every_magnitude(torch.float32),)
    check(loses_sign, inputs, backend_with(lambda y: torch.where(y == 0, inputs[0], y)))
    with pytest.raises(AssertionError, match=r"sum: sign of zero: 1 of \d+ wrong, first at \(12,\): 0.0 for -0.0"):
        check(loses_sign, inputs, "eager")


def test_wrong_integers_are_found() -> None:
    with pytest.raises(AssertionError, match="1 of 9 wrong"):
        check({"add": Op(torch.add)}, (torch.arange(9), torch.arange(9)), backend_with(at(4, 0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_spacing(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    x = torch.tensor([0.0, info.tiny / 2, info.tiny, 1.0, 1.5, -2.0, info.max], dtype=torch.float64)
    smallest = info.tiny * info.eps
    largest = info.eps * 2.0 ** math.floor(math.log2(info.max))
    expected = [smallest, smallest, smallest, info.eps, info.eps, 2 * info.eps, largest]
    assert spacing(x, dtype).tolist() == expected
