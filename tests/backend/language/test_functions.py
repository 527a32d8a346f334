"""Functions and what they take: nested and noinline ones, tuples, constexpr; mapped functions; what is refused."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest
import torch
import triton
import triton.language as tl
from triton.compiler.errors import CompileTimeAssertionFailure


@triton.jit
def pick(x, pid):
    if pid == 0:
        return x + 1
    elif pid == 1:
        return x + 2
    return x * 3


@triton.jit
def constant_condition(x, FLAG: tl.constexpr):
    if FLAG:
        return x
    else:
        return x - 1


@triton.jit
def apply_twice(function, x):
    return function(function(x))


@triton.jit
def square(x):
    return x * x


@triton.jit
def defaults(x, by=10):
    return x + by


@triton.jit
def functions(x, out, F: tl.constexpr, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    value = pick(tl.load(x + i), pid) + pick(pid, pid)
    value = constant_condition(value, True) + constant_condition(value, False)
    value = apply_twice(F, value) + defaults(value) + defaults(value, by=pid)
    tl.store(out + pid * BLOCK + i, value)


def test_functions() -> None:
    x, out = torch.randint(0, 5, (16,)), torch.empty(3, 16, dtype=torch.int64)
    functions[(3,)](x, out, F=square, BLOCK=16)
    for pid, (picked, own) in enumerate([(x + 1, 1), (x + 2, 3), (x * 3, 6)]):
        value = 2 * (picked + own) - 1
        assert torch.equal(out[pid], value**4 + (value + 10) + (value + pid))


@triton.jit(noinline=True)
def far_add(x, y, out):
    tl.store(out, x + y)
    return x - y


@triton.jit(noinline=True)
def far_pair(x, y):
    if x > y:
        return x, y
    return y, x


@triton.jit(noinline=True)
def far_block(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    value = tl.load(x + i) + tl.program_id(0) * n
    total = tl.sum(value)
    if total > 100:
        tl.store(out + i, value)
        return total
    tl.store(out + i, -value)
    return total + 1


@triton.jit
def calls_far(x, out, scalars, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    difference = far_add(tl.load(x), tl.load(x + 1), scalars + 8 * pid)
    big, small = far_pair(tl.load(x), tl.load(x + 1))
    total = 0.0
    for k in range(2):
        total += far_block(x + k * BLOCK, out + (pid * 2 + k) * BLOCK, k + 1, BLOCK)
    tl.store(scalars + 8 * pid + 1, difference)
    tl.store(scalars + 8 * pid + 2, big * 10 + small)
    tl.store(scalars + 8 * pid + 3, total)


def test_noinline_functions() -> None:
    x, out, scalars = torch.arange(2.0, 34), torch.empty(3, 2, 16), torch.zeros(3, 8)
    calls_far[(3,)](x, out, scalars, BLOCK=16)
    for pid in range(3):
        total = 0.0
        for k in range(2):
            value = x[16 * k : 16 * k + 16] + pid * (k + 1)
            large = value.sum() > 100
            assert torch.equal(out[pid, k], value if large else -value)
            total += value.sum() + (0 if large else 1)
        assert scalars[pid, :4].tolist() == [5.0, -1.0, 32.0, total]


@triton.jit(noinline=True)
def scale(x, by):
    return x * by


@triton.jit
def passes_a_block(x, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(x + i, scale(tl.load(x + i), 2))


def test_blocks_are_no_arguments_of_noinline_functions() -> None:
    with pytest.raises(triton.CompilationError, match="noinline"):
        passes_a_block[(1,)](torch.zeros(16), BLOCK=16)


class View(NamedTuple):
    pointer: object
    shape: tuple[object, ...]
    strides: tuple[object, ...]


class Closure(NamedTuple):
    function: tl.constexpr
    captured: tuple[object, ...]


@triton.jit
def times(x, by):
    return x * tl.load(by)


@triton.jit
def rebuilt(view):
    return View(pointer=view.pointer, shape=view.shape, strides=view.strides)


@triton.jit
def named_tuples(closure, source, target, R: tl.constexpr, C: tl.constexpr):
    a, b = rebuilt(source), rebuilt(target)
    r, c = tl.arange(0, R)[:, None], tl.arange(0, C)[None, :]
    x = tl.load(a.pointer + r * a.strides[0] + c * a.strides[1], mask=(r < a.shape[0]) & (c < a.shape[1]), other=0)
    y = closure.function(x, *closure.captured)
    tl.store(b.pointer + r * b.strides[0] + c * b.strides[1], y, mask=(r < b.shape[0]) & (c < b.shape[1]))


def test_named_tuples() -> None:
    x, y, by = torch.randn(20, 24), torch.zeros(16, 12), torch.tensor([1.5])
    views = [View(t, tuple(t.shape), t.stride()) for t in (x, y)]
    named_tuples[(1,)](Closure(times, (by,)), *views, R=32, C=32)
    assert torch.equal(y, x[:16, :12] * by)


@triton.jit
def swap(pair):
    return pair[1], pair[0]


@triton.jit
def tuples(pointers, numbers, nested, out):
    first, second = swap(numbers)
    for i in tl.static_range(len(pointers)):
        tl.store(pointers[i], numbers[i] + i)
    tl.static_assert(nested[1][1] is None)
    tl.static_assert((1, 2) + (3,) == (1, 2, 3))
    tl.store(out, first * 10 + second)
    tl.store(out + 1, nested[0] + nested[1][0])
    tl.store(out + 2, tl.load(nested[1][2]))
    t = (first, nested[0])
    for _ in range(3):
        t = (t[1], t[0] + t[1])
    tl.store(out + 3, t[0] * 1000 + t[1])


def test_tuples() -> None:
    pointers, out = (torch.zeros(1), torch.zeros(1)), torch.zeros(4, dtype=torch.int64)
    tuples[(1,)](pointers, (3, 4), (7, (5, None, torch.tensor([99]))), out)
    assert [p.item() for p in pointers] == [3, 5]
    assert out.tolist() == [43, 12, 99, 18 * 1000 + 29]


@triton.constexpr_function
def doubled(n):
    return 2 * n


@triton.jit
def constants(out, DTYPE: tl.constexpr, SHAPE: tl.constexpr, NAME: tl.constexpr, NONE: tl.constexpr):
    tl.static_assert(NONE is None, "NONE is passed as None")
    tl.static_assert(doubled(SHAPE[0]) == 16)
    if NAME == "full":
        value = tl.full(SHAPE, 3, DTYPE)
    else:
        value = tl.zeros(SHAPE, DTYPE)
    r, c = tl.arange(0, SHAPE[0])[:, None], tl.arange(0, SHAPE[1])[None, :]
    tl.store(out + r * SHAPE[1] + c, value)


@pytest.mark.parametrize("name, number", [("full", 3), ("zeros", 0)])
def test_constexpr(name: str, number: int) -> None:
    out = torch.full((8, 4), -1, dtype=torch.int16)
    constants[(1,)](out, DTYPE=tl.int16, SHAPE=(8, 4), NAME=name, NONE=None)
    assert torch.equal(out, torch.full_like(out, number))


def test_static_assert_and_static_print(capfd: pytest.CaptureFixture[str]) -> None:
    @triton.jit
    def kernel(N: tl.constexpr, RUN: tl.constexpr):
        tl.static_print("N is", N)
        tl.static_assert(N == 4, "N must be 4")

    run = time.time_ns()  # a kernel that no cache has: text is printed while one is compiled
    kernel[(1,)](N=4, RUN=run)
    assert "N is" in capfd.readouterr().out
    with pytest.raises(CompileTimeAssertionFailure, match="N must be 4"):
        kernel[(1,)](N=5, RUN=run)


@triton.jit
def assumed(out, n):
    tl.assume(n > 4)
    tl.store(out, n * 2)


@pytest.mark.cpu_only("it reads the LLVM IR")
def test_assume() -> None:
    out = torch.zeros(1, dtype=torch.int32)
    compiled = assumed[(1,)](out, 21)
    assert out.item() == 42
    assert "llvm.assume" in compiled.asm["llir"]


@triton.jit
def never_returns_a_value(x):
    flag = False
    if flag:
        return x


@triton.jit
def uses_poison(out, n):
    tl.store(out, never_returns_a_value(0), mask=n > 5)


def test_missing_return_values_are_undefined() -> None:
    out = torch.tensor([3], dtype=torch.int32)
    uses_poison[(1,)](out, 2)
    assert out.item() == 3


@triton.jit
def selu(x, alpha):
    if x > 0:
        return x
    else:
        return alpha * (tl.exp(x) - 1)


@triton.jit
def order_pair(a, b, c, d):
    if a > b:
        return b, a, c, d
    else:
        return a, b, d, c


@triton.jit
def maps(x, y, out, ordered, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(out + i, tl.map_elementwise(selu, a, tl.full((), 1.5, tl.float32)))
    low, high = tl.map_elementwise(order_pair, a, b, pack=2)
    tl.store(ordered + i, low)
    tl.store(ordered + BLOCK + i, high)


def test_functions_of_single_elements() -> None:
    x, y, out, ordered = torch.randn(64), torch.randn(64), torch.empty(64), torch.empty(2, 64)
    maps[(1,)](x, y, out, ordered, BLOCK=64)
    torch.testing.assert_close(out, torch.where(x > 0, x, 1.5 * x.double().expm1()).float(), rtol=1e-5, atol=1e-6)
    a, b, c, d = x[0::2], x[1::2], y[0::2], y[1::2]
    swap = a > b
    assert torch.equal(ordered[0], torch.stack([torch.where(swap, b, a), torch.where(swap, a, b)], 1).flatten())
    assert torch.equal(ordered[1], torch.stack([torch.where(swap, c, d), torch.where(swap, d, c)], 1).flatten())


@triton.jit
def asm(x, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    y = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [tl.load(x + i)], dtype=tl.int32, is_pure=True, pack=1)
    tl.store(x + i, y)


def test_inline_assembly_is_refused() -> None:
    from torchport.errors import UnsupportedOperation

    with pytest.raises(UnsupportedOperation, match="inline assembly"):
        asm[(1,)](torch.zeros(16, dtype=torch.int32), BLOCK=16)


def test_gluon_is_refused() -> None:
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl

    from torchport.errors import UnsupportedOperation

    @gluon.jit
    def kernel(x, BLOCK: gl.constexpr):
        layout: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
        gl.store(x + gl.arange(0, BLOCK, layout=layout), 1)

    with pytest.raises(UnsupportedOperation, match="Gluon"):
        kernel[(1,)](torch.zeros(32, dtype=torch.int32), 32)
