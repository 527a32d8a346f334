"""Products of bf16 that flush denormals, in recordings: verdicts and comparisons name the flush, and the option."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torchport_cpu.host import host_info

import torchport
from torchport.cli.precision.diff import compared
from torchport.inductor.products.lowering import flushes
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.recorded_call import calls_of
from torchport.numerics.verdicts.verdict import KernelVerdict

pytestmark = pytest.mark.cpu_only("an option of the CPU target")
PAIRS = pytest.mark.skipif(not host_info().bf16_pairs, reason="no instruction for pairs of bf16")
FLUSHED = "flushed denormals"


@triton.jit
def users_product(A, B, C, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    c = tl.dot(tl.load(A + m[:, None] * K + k[None, :]), tl.load(B + k[:, None] * N + n[None, :]))
    tl.store(C + m[:, None] * N + n[None, :], c)


def by_kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a.new_empty(a.shape[0], b.shape[1], dtype=torch.float32)
    users_product[(1,)](a, b, c, *a.shape[:1], b.shape[1], a.shape[1])
    return c


def by_aten(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.mm(a, b)


def operands() -> tuple[torch.Tensor, torch.Tensor]:
    """A row in four has denormal numbers, and one products that are denormal."""
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(one, generator=draw) for one in ((32, 64), (64, 32)))
    a[::4] *= 2.0**-130
    a[1::4] *= 2.0**-100
    b *= 2.0**-10
    b[:, ::2] *= 2.0**-20
    return a.bfloat16(), b.bfloat16()


def recorded(folder: Path, function: Callable[..., Any], **options: Any) -> Run:
    torch._dynamo.reset()
    with torch.no_grad(), torchport.record(folder, "full"):
        torch.compile(function, backend="torchport", options=options)(*operands())
    return Run.load(folder, trust=True)


def verdicts(run: Run) -> list[KernelVerdict]:
    return [judge(call, launch) for call in calls_of(run) for launch in call.launches]


@PAIRS
def test_kernels_with_the_option_are_expected_and_the_comparison_says_why(tmp_path: Path) -> None:
    exact = recorded(tmp_path / "a", by_kernel, bf16_products="exact")
    pairs = recorded(tmp_path / "b", by_kernel, bf16_products="pairs")
    (sound,), (flushed,) = verdicts(exact), verdicts(pairs)
    assert not sound.is_bad and sound.cause == "legal rounding"
    assert (flushed.level, flushed.cause) == ("EXPECTED", FLUSHED)
    (tensor,) = flushed.tensors
    assert dict(tensor.attribution)[FLUSHED] > 0.9 and tensor.residual is not None and tensor.residual < 0.01
    diff = compared(exact, pairs, truth="fp64")
    assert [(root.run, root.cause) for root in diff.roots if root.legal] == [("B", FLUSHED), ("A", "legal rounding")]
    assert len(diff.roots) == 2
    conditions = {one.what: one for one in diff.programs.conditions if one.differs}
    assert '"bf16_products": "exact"' in conditions["options"].a and "pairs" in conditions["options"].b


@PAIRS
def test_a_kernel_that_flushes_without_the_option_is_wrong_and_the_flush_is_its_cause(tmp_path: Path) -> None:
    run = recorded(tmp_path / "a", by_kernel, bf16_products="pairs")
    for kernel in run.kernels.values():
        kernel["source"] = kernel["source"].replace("# torchport bf16 pairs\n", "")
    (verdict,) = verdicts(run)
    assert verdict.level == "FAIL"
    (tensor,) = verdict.tensors
    assert tensor.attribution[0][0] == FLUSHED and tensor.attribution[0][1] > 0.9


@pytest.mark.skipif(not flushes(), reason="aten's products keep denormals")
def test_products_of_atens_library_are_expected_as_it_was_tried(tmp_path: Path) -> None:
    run = recorded(tmp_path / "a", by_aten, bf16_products="exact")
    assert run.info["flushing"] == ["cpu"]
    (verdict,) = verdicts(run)
    assert (verdict.level, verdict.cause) == ("EXPECTED", FLUSHED)
    run.info["flushing"] = []
    (verdict,) = verdicts(run)
    assert verdict.level == "FAIL" and verdict.tensors[0].attribution[0][0] == FLUSHED
