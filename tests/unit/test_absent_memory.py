"""Tensors without memory, and grids that no launch can have: one clear error on every path that launches kernels."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from kernels import Kernel
from torch._subclasses import FakeTensorMode

import torchport
from torchport.errors import KernelAssertionError, TargetError


@triton.jit
def double_kernel(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, 2 * tl.load(x + i, i < n), i < n)


def resized() -> torch.Tensor:
    tensor = torch.ones(64)
    tensor.untyped_storage().resize_(0)
    return tensor


def far_view() -> torch.Tensor:
    """One part of a flat parameter whose storage was freed: its address is an offset from null."""
    whole = torch.ones(8192)
    view = whole[4096:4160]
    whole.untyped_storage().resize_(0)
    return view


def fake() -> torch.Tensor:
    return FakeTensorMode().from_tensor(torch.ones(64))


def meta() -> torch.Tensor:
    return torch.empty(64, device="meta")


ABSENT = [resized, far_view, fake, meta]


def of_triton(x: torch.Tensor) -> None:
    double_kernel[(1,)](x, torch.empty(64), 64, 64)


def on_opencl(x: torch.Tensor) -> None:
    pytest.importorskip("pyopencl")
    with torchport.use("opencl"):
        double_kernel[(1,)](x, torch.empty(64), 64, 64)


def bound(x: torch.Tensor) -> None:
    """As compiled graphs and ``offline.Kernel.launch`` do."""
    kernel = Kernel("vector_add", ["*fp32", "*fp32", "*fp32", "i32"])
    kernel.launcher.bind(1, 1, 1, kernel.code.address)(torch.ones(64), x, torch.empty(64), 64)


@pytest.mark.parametrize("make", ABSENT)
@pytest.mark.parametrize("launch", [of_triton, on_opencl, bound])
def test_memory_that_is_not_there(launch: Callable[[torch.Tensor], None], make: Callable[[], torch.Tensor]) -> None:
    launch(torch.ones(64))
    with pytest.raises(ValueError, match=r"kernel \w+.*has no memory|kernel \w+.*64 elements and no memory"):
        launch(make())


@pytest.mark.parametrize("launch", [of_triton, bound])
def test_an_empty_tensor_has_no_memory_and_needs_none(launch: Callable[..., None]) -> None:
    empty = torch.empty(0)
    assert empty.data_ptr() == 0
    double_kernel[(1,)](empty, torch.empty(64), 0, 64)
    kernel = Kernel("vector_add", ["*fp32", "*fp32", "*fp32", "i32"])
    kernel.launcher.bind(1, 1, 1, kernel.code.address)(empty, empty, empty, 0)


def test_a_compiled_graph_whose_parameter_was_freed() -> None:
    weight = torch.nn.Parameter(torch.ones(64), requires_grad=False)
    compiled = torch.compile(lambda x: torch.sin(x * weight), backend="torchport")
    compiled(torch.ones(64))
    weight.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="64 elements and no memory"):
        compiled(torch.ones(64))
    weight.untyped_storage().resize_(256)
    weight.fill_(2.0)
    assert torch.equal(compiled(torch.ones(64)), torch.sin(torch.full((64,), 2.0)))


LARGE = 2**31 - 1


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        ((LARGE, LARGE, LARGE), r"has 2\*\*63 program instances or more"),
        ((2**31, 1, 1), r"is not in \[0, 2\*\*31\)"),
        ((2**80, 1, 1), r"is not in \[0, 2\*\*31\)"),
        ((1, -1, 1), r"is not in \[0, 2\*\*31\)"),
        ((0, -1, 1), r"is not in \[0, 2\*\*31\)"),
    ],
)
def test_grids_that_are_none(grid: tuple[int, int, int], why: str) -> None:
    kernel = Kernel("vector_add", ["*fp32", "*fp32", "*fp32", "i32"])
    x = torch.ones(64)
    with pytest.raises(ValueError, match=why):
        kernel(x, x, x, 64, grid=grid)
    with pytest.raises(ValueError, match=why):
        kernel.launcher.bind(*grid, kernel.code.address)


@pytest.mark.parametrize("grid", [(2**31, 1, 1), (0, -1, 1), (1, 1, 2**20), (2**80, 0, 1)])
def test_grids_that_a_device_does_not_take(grid: tuple[int, int, int]) -> None:
    pytest.importorskip("pyopencl")
    x = torch.ones(64)
    with torchport.use("opencl"), pytest.raises(TargetError, match="the device runs grids up to"):
        double_kernel[grid](x, torch.empty(64), 64, 64)


@triton.jit
def asserting_kernel(x, out, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.arange(0, BLOCK)
    values = tl.sort(tl.load(x + i))
    tl.device_assert(values < 2, "too large")
    tl.store(out + i, values)


def test_a_failing_assertion_frees_the_scratch_memory() -> None:
    """A sort of 64 Ki floats keeps half a megabyte of scratch memory: 40 failures would leave 20 MB."""
    count = 1 << 16
    x, out = torch.full((count,), 3.0), torch.empty(count)

    def fail(times: int) -> None:
        for _ in range(times):
            with pytest.raises(KernelAssertionError):
                asserting_kernel[(1,)](x, out, count, debug=True)

    fail(3)
    before = resident()
    fail(40)
    assert resident() - before < 4 << 20


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
