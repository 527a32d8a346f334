"""The kernel sanitizer, accesses out of bounds: each fault planted, and every field of what is reported about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from sanitizing import count, double, found, line_of, place, shifted

import torchport
from torchport.errors import SanitizerError

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's driver is the active one here")


def test_store_beyond_the_end() -> None:
    x, out = torch.randn(10, 100), torch.zeros(10, 100)
    (one,) = found(lambda: double[(2, 1, 2)](x, out, 1000, BLOCK=256))
    assert (one.check, one.access, one.kernel, one.argument) == ("address", "store", "double", "out")
    assert one.program == (1, 0, 1)
    assert (one.element, one.index) == (1000, (10, 0))
    assert (one.elements, one.programs) == (24, 1)
    assert [place(f) for f in one.frames] == [line_of("unmasked store")]
    assert one.tensor == "float32 (10, 100), strides (100, 1), storage of 4000 bytes"
    assert one.problem == "reaches 4 bytes beyond its storage"
    assert (one.other_access, one.other_program, one.other_frames) == ("", None, ())
    torch.testing.assert_close(out, x * 2)  # the rest of the kernel has run


def test_the_message_says_it_all() -> None:
    with torchport.sanitize(), pytest.raises(SanitizerError) as caught:
        double[(4,)](torch.ones(1000), torch.zeros(1000), 1000, BLOCK=256)
    file, line = line_of("unmasked store")
    assert str(caught.value).splitlines() == [
        "kernel double, grid (4, 1, 1): 1 finding of the sanitizer",
        "",
        "1. address: store of out, element 1000 = out[1000], by program (3, 0, 0): reaches 4 bytes beyond its storage",
        f"  {Path(file).relative_to(Path.cwd()) if Path(file).is_relative_to(Path.cwd()) else file}:{line}: "
        "tl.store(out + i, value * 2)  # unmasked store",
        "  24 elements in 1 program instance; out is float32 (1000,), strides (1,), storage of 4000 bytes",
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.int64])
def test_load_before_the_start(dtype: torch.dtype) -> None:
    x, out = torch.ones(32, dtype=dtype), torch.zeros(32, dtype=dtype)
    (one,) = found(lambda: shifted[(2,)](x, out, 5, BLOCK=16))
    assert (one.check, one.access, one.argument, one.element, one.index) == ("address", "load", "x", -5, (-5,))
    assert (one.program, one.elements, one.programs) == ((0, 0, 0), 5, 1)
    assert one.problem == f"starts {5 * x.element_size()} bytes before its storage"
    assert place(one.frames[0]) == line_of("shifted load")
    assert out.tolist() == [0] * 5 + [1] * 27  # what may not be loaded reads as zero


def test_load_before_an_empty_tensor() -> None:
    x, out = torch.empty(0), torch.zeros(32)
    findings = found(lambda: shifted[(1,)](x, out, 5, BLOCK=16))
    (before,) = [one for one in findings if one.argument == "x" and one.element < 0]
    assert before.element == -5 and before.problem == "starts 20 bytes before its storage"


def test_views_reach_their_storage_unless_extent_is_asked_for() -> None:
    base, out = torch.arange(64.0), torch.zeros(16)
    with torchport.sanitize():
        shifted[(1,)](base[16:32], out, 4, BLOCK=16)
    assert torch.equal(out, base[12:28])
    (one,) = found(lambda: shifted[(1,)](base[16:32], out, 4, BLOCK=16), "extent")
    assert (one.check, one.element, one.elements) == ("address", -4, 4)
    assert one.problem == "starts 16 bytes before its view"
    assert one.tensor == "float32 (16,), strides (1,), offset 16, storage of 256 bytes"


def test_a_faulty_store_is_not_done() -> None:
    base = torch.zeros(48)
    (one,) = found(lambda: double[(2,)](torch.ones(32), base[:24], 32, BLOCK=16), "extent")
    assert (one.element, one.elements, one.problem) == (24, 8, "reaches 4 bytes beyond its view")
    assert base.tolist() == [2] * 24 + [0] * 24


@triton.jit
def gather(x, index, out, n, stride, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    inside = i < n
    at = tl.load(index + i, mask=inside, other=1000000)
    tl.store(out + i, tl.load(x + at * stride + 3, mask=inside), mask=inside)  # gather


def test_gathers_and_masked_lanes() -> None:
    x, out = torch.randn(50, 6)[:, ::2], torch.zeros(9)
    index = torch.tensor([3, 49, 0, 7, 50, 1, 200, 2, 2])
    (one,) = found(lambda: gather[(1,)](x[:, :2], index, out, 9, 6, BLOCK=16))
    assert (one.argument, one.element, one.index, one.elements) == ("x", 303, None, 2)  # 303 is between two elements
    assert place(one.frames[0]) == line_of("gather", __file__)
    index[4] = index[6] = 48
    with torchport.sanitize():
        gather[(1,)](x, index, out, 9, 6, BLOCK=16)


@triton.jit
def scalars(x, out, at):
    tl.store(out + at, tl.load(x + tl.program_id(1)))  # scalars


def test_scalars_and_program_ids() -> None:
    findings = found(lambda: scalars[(1, 4, 2)](torch.ones(3), torch.ones(4), -1))
    assert [(f.access, f.element, f.program, f.elements, f.programs) for f in findings] == [
        ("load", 3, (0, 3, 0), 1, 2),
        ("store", -1, (0, 0, 0), 1, 8),
    ]


def test_atomics() -> None:
    bins, compared = torch.zeros(4, dtype=torch.int32), torch.zeros(5, dtype=torch.int32)
    x = torch.tensor([0, 1, 1, 3, 4, 4, 9, 2])
    findings = found(lambda: count[(2,)](bins, compared, x, BLOCK=8))
    assert [(f.access, f.argument, f.element, f.elements, f.programs) for f in findings] == [
        ("atomic add", "bins", 4, 2, 2),
        ("atomic cas", "compared", 9, 1, 2),
    ]
    assert [place(f.frames[0]) for f in findings] == [line_of("add"), line_of("compare")]
    assert bins.tolist() == [2, 4, 2, 2]
    assert compared.tolist() == [1] * 5


@triton.jit
def column_of(pointers, k, limit):
    return tl.load(pointers, mask=k < limit, other=0.0)  # helper


@triton.jit
def row_sums(x, out, rows, columns, BLOCK: tl.constexpr):
    r = tl.arange(0, BLOCK)
    pointers = x + r * columns
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(columns):
        total += column_of(pointers, k, columns)  # caller
        pointers += 1
    tl.store(out + r, total, mask=r < rows)


def test_pointers_of_loops_and_lines_of_helpers() -> None:
    (one,) = found(lambda: row_sums[(1,)](torch.ones(7, 5), torch.zeros(8), 8, 5, BLOCK=8))
    assert (one.argument, one.element, one.index, one.elements) == ("x", 35, (7, 0), 5)
    assert [place(f) for f in one.frames] == [line_of("helper", __file__), line_of("caller", __file__)]


@triton.jit
def matmul(a, b, c, rows, columns, inner, limit, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    m, n, k = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1) * N + tl.arange(0, N), tl.arange(0, K)
    left, right = a + m[:, None] * inner + k[None, :], b + k[:, None] * columns + n[None, :]
    total = tl.zeros((M, N), tl.float32)
    for start in range(0, limit, K):
        x = tl.load(left, mask=(m[:, None] < rows) & (k[None, :] < limit - start), other=0.0)
        y = tl.load(right, mask=(n[None, :] < columns) & (k[:, None] < limit - start), other=0.0)  # right
        total = tl.dot(x, y, total)
        left += K
        right += K * columns
    tl.store(c + m[:, None] * columns + n[None, :], total, mask=(m[:, None] < rows) & (n[None, :] < columns))


def test_operands_of_dots() -> None:
    a, b, c = torch.randn(70, 96), torch.randn(90, 50), torch.zeros(70, 50)
    (one,) = found(lambda: matmul[(3, 2)](a, b, c, 70, 50, 96, 96, M=32, N=32, K=16))
    assert (one.check, one.argument, one.element, one.index) == ("address", "b", 4500, (90, 0))
    assert (one.elements, one.programs) == (6 * 50, 6)
    assert place(one.frames[0]) == line_of("right", __file__)


def test_several_arguments_in_a_tuple() -> None:
    pair = (torch.ones(16), torch.ones(15))
    (one,) = found(lambda: add_pair[(1,)](pair, torch.zeros(16), BLOCK=16))
    assert (one.argument, one.element) == ("pair[1]", 15)


@triton.jit
def add_pair(pair, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(pair[0] + i) + tl.load(pair[1] + i))


@triton.jit
def through_table(table, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    pointer = tl.load(table + tl.program_id(0)).to(tl.pointer_type(tl.float32))
    tl.store(out + tl.program_id(0) * BLOCK + i, tl.load(pointer + i))


def test_memory_that_is_no_arguments_is_left_alone() -> None:
    a, b, out = torch.randn(16), torch.randn(16), torch.zeros(32)
    with torchport.sanitize():
        through_table[(2,)](torch.tensor([a.data_ptr(), b.data_ptr()]), out, BLOCK=16)
    assert torch.equal(out, torch.cat([a, b]))
