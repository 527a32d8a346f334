"""Parts of the kernel sanitizer: source lines and names out of TTIR, indices into strided tensors."""

from __future__ import annotations

import pytest
import torch
from torchport_passes.frontend.locations import argument_names, memory_locations

from torchport.runtime.sanitizer.report import SHOWN, Finding, Frame, as_error, index_of

TTIR = r"""
#loc = loc("/k/add.py":3:0)
#loc1 = loc(unknown)
module {
  tt.func public @add(%x_ptr: !tt.ptr<f32> {tt.divisibility = 16 : i32} loc("x_ptr"(#loc)), %1: i32 loc("n"(#loc)), %plain: f32 loc(#loc)) attributes {noinline = false} {
    %c = arith.constant 0 : i32 loc(#loc1)
    %a = tt.load %x_ptr : !tt.ptr<f32> loc(#loc9)
    %b = tt.load %x_ptr evictionPolicy = evict_last : !tt.ptr<f32> loc(#loc10)
    tt.store %x_ptr, %a : !tt.ptr<f32> loc(#loc11)
    %r = tt.atomic_rmw fadd, acq_rel, gpu, %x_ptr, %a, %m : (!tt.ptr<f32>, f32, i1) -> f32 loc(#loc1)
    tt.store %x_ptr, %b : !tt.ptr<f32> loc(#loc12)
    tt.return loc(#loc1)
  } loc(#loc)
} loc(#loc)
#loc2 = loc("/k/add.py":5:16)
#loc3 = loc("/k/with \"quotes\" at (odd).py":7:4)
#loc4 = loc("/k/add.py":9:8)
#loc9 = loc("a"(#loc2))
#loc10 = loc(callsite(#loc3 at callsite(#loc2 at #loc4)))
#loc11 = loc(fused[#loc3, #loc4])
#loc12 = loc("b"(callsite("inner"(#loc4) at #loc2)))
"""  # noqa: E501


def test_locations() -> None:
    odd = '/k/with "quotes" at (odd).py'
    assert memory_locations(TTIR) == [
        [("/k/add.py", 5, 16)],
        [(odd, 7, 4), ("/k/add.py", 5, 16), ("/k/add.py", 9, 8)],
        [(odd, 7, 4)],
        [],
        [("/k/add.py", 9, 8), ("/k/add.py", 5, 16)],
    ]
    assert argument_names(TTIR) == ["x_ptr", "n", "plain"]
    assert argument_names("module {}") == []


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(3, 4, 5),
        torch.empty(5, 4, 3).permute(2, 1, 0),
        torch.empty(6, 8)[::2, 1::3],
        torch.empty(2, 1, 7).expand(2, 1, 7),
        torch.empty(4, 1),
    ],
)
def test_index_of_is_the_inverse_of_strides(tensor: torch.Tensor) -> None:
    strides = tensor.stride()
    for index in torch.cartesian_prod(*(torch.arange(n) for n in tensor.shape)).tolist():
        element = sum(i * s for i, s in zip(index, strides, strict=True))
        assert index_of(element, tensor.shape, strides) == tuple(index)


def test_indices_that_are_out_of_range_or_nowhere() -> None:
    assert index_of(103, (10, 10), (10, 1)) == (10, 3)
    assert index_of(-1, (10, 10), (10, 1)) == (-1, 9)
    assert index_of(5, (1,), (1,)) == (5,)
    assert index_of(0, (), ()) is None
    assert index_of(8, (10, 5), (10, 1)) is None  # in the gap between two rows
    assert index_of(3, (4,), (2,)) is None
    assert index_of(3, (4,), (0,)) is None


def test_a_message_fits_a_screen() -> None:
    frame = Frame("/nowhere/kernel.py", 3, 1)
    one = Finding("race", "k", "store", (1, 0, 0), "out", 2, (2,), 1, 1, (frame,), "float32 (4,)", "not ordered")
    error = as_error("k", (4, 1, 1), [one] * (SHOWN + 3))
    assert len(error.findings) == SHOWN + 3
    assert str(error).count("race: store of out, element 2 = out[2]") == SHOWN
    assert str(error).endswith("... and 3 more in the error's findings")
    assert "  /nowhere/kernel.py:3\n" in str(error)
