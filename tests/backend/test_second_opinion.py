"""Kernels whose source is another computation than the graph's fail; what rounding, overflow and ties do passes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from precision_bench.sources import FAULTS, LEGAL, drawn, kernels, run_of

from torchport.numerics.verdicts.recorded_call import calls_of
from torchport.numerics.verdicts.ties import are_ties

QUICK = {"mask off by one", "eps outside", "index off by one", "infinity lost", "beside fp8", "rounded down"}
"""Kinds that are tried every time; the others are their relatives."""


def some(names: Iterable[str], quick: set[str]) -> list[Any]:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", some(FAULTS, QUICK))
def test_a_fault_in_the_source_fails_where_it_is(name: str, tmp_path: Path) -> None:
    call, given, fault, wrong = FAULTS[name]
    (verdict,) = kernels(run_of(tmp_path / "run", call, given, fault))
    assert verdict.level == "FAIL"
    assert {tensor.node for tensor in verdict.tensors if tensor.is_bad} == wrong
    assert all("another computation" in tensor.reasons[-1] for tensor in verdict.tensors if tensor.is_bad)
    assert not any(tensor.unchecked for tensor in verdict.tensors)


QUICK_LEGAL = {"fp16 overflows, and what follows is NaN", "casts saturate", "equal elements", "fp8 on an H100"}


@pytest.mark.parametrize("name", some(LEGAL, QUICK_LEGAL))
def test_what_is_legal_passes(name: str, tmp_path: Path) -> None:
    call, given, options = LEGAL[name]
    found = kernels(run_of(tmp_path / "run", call, given, **options))
    assert found
    assert {verdict.level for verdict in found} <= {"EXACT", "EXPECTED"}, [verdict.reasons for verdict in found]
    assert not any(tensor.unchecked for verdict in found for tensor in verdict.tensors)


def test_which_of_equal_elements_comes_first_does_not_matter_but_none_comes_twice(tmp_path: Path) -> None:
    x = torch.round(drawn(4, 9))
    (call,) = calls_of(run_of(tmp_path / "run", lambda x: torch.sort(x * 2, -1), (x,)))
    launch = call.launches[-1]
    node = next(name for name, seen in call.observed.left_by(launch).items() if "int" in str(seen.arg.dtype))
    values, indices = torch.sort(x * 2, dim=-1, stable=True)
    at = next(one for one in range(8) if values[0, one] == values[0, one + 1])
    swapped = indices.clone()
    swapped[0, [at, at + 1]] = indices[0, [at + 1, at]]
    assert are_ties(call, launch, node, swapped, indices).all()
    swapped[0, at] = swapped[0, at + 1]
    assert not are_ties(call, launch, node, swapped, indices).any()


def test_a_kernel_that_no_node_tells_of_says_so(tmp_path: Path) -> None:
    import triton
    import triton.language as tl

    @triton.jit
    def doubled(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(out + i, tl.load(x + i, i < n) * 2.0, i < n)

    def call(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        doubled[(4,)](x, out, x.numel(), BLOCK=16)
        return out

    (verdict,) = kernels(run_of(tmp_path / "run", call, (drawn(50),)))
    assert verdict.method == "kernel in float64, not its FX nodes"
    assert all(tensor.unchecked for tensor in verdict.tensors)
