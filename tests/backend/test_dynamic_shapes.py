"""One compiled function for many sizes: sizes as values, around blocks, zero and one, symbolic strides."""

from __future__ import annotations

import pytest
import torch
from opcheck import Family, Op, in_float64, judge
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures("no_fallback")

SIZES = [(2, 3), (5, 31), (33, 64), (128, 129), (7, 1000), (64, 4097), (3, 17)]


def root(x: torch.Tensor) -> float:
    """sqrt of the number of elements: how errors of random sign add up."""
    return x.numel() ** 0.5


FAMILY: Family = {
    "softmax": Op(lambda x, w: torch.softmax(x, -1), 4, lambda x, w: (8 + root(x[0]) + x.abs()) * torch.softmax(x, -1)),
    "layer norm": Op(lambda x, w: F.layer_norm(x, x.shape[-1:], w), 8, lambda x, w: root(x[0]) * (1 + x.abs()) * w),
    "column sums": Op(lambda x, w: x.sum(0), 1, lambda x, w: root(x[:, 0]) * x.abs().sum(0)),
    "mean of all": Op(lambda x, w: x.mean(), 1, lambda x, w: root(x) * x.abs().mean()),
    "size as a value": Op(lambda x, w: x * 2 + x.shape[0] * x.shape[1], 2),
    "arange": Op(lambda x, w: torch.arange(x.shape[1]) + (x[0] > 0)),
    "cat": Op(lambda x, w: torch.cat([x, x[:1]], 0), ulps=0),
    "transposed": Op(lambda x, w: x.t().contiguous().flatten(), ulps=0),
    "argmax": Op(lambda x, w: x.argmax(-1)),
    "cumsum": Op(lambda x, w: x.cumsum(-1), 1, lambda x, w: root(x[0]) * x.abs().cumsum(-1)),
    "var": Op(lambda x, w: x.var(-1), 4, lambda x, w: 2 * root(x[0]) * (x * x).mean(-1)),
    "pad": Op(lambda x, w: F.pad(x, (1, x.shape[0])), ulps=0),
    "reshape": Op(lambda x, w: x.reshape(-1)[: x.shape[0] * x.shape[1] // 2].abs(), ulps=0),
}


def program(x: torch.Tensor, w: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: op.fn(x, w) for name, op in FAMILY.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_many_sizes_one_compile(dtype: torch.dtype, compile_backend: str) -> None:
    counter = CompileCounterWithBackend(compile_backend)
    compiled = torch.compile(program, backend=counter, dynamic=True, fullgraph=True)
    problems = []
    for rows, columns in SIZES:
        x, w = torch.randn(rows, columns).to(dtype), torch.randn(columns).to(dtype)
        eager, exact, got = program(x, w), in_float64(program, (x, w)), compiled(x, w)
        for name, op in FAMILY.items():
            lines = judge(op, got[name], eager[name], exact[name], (x, w))
            problems += [f"{name} at {rows} x {columns}: {line}" for line in lines]
    assert not problems, f"{compile_backend} {dtype}:\n" + "\n".join(problems)
    assert counter.frame_count == 1, f"{counter.frame_count} compiles for {len(SIZES)} sizes"


def test_automatic_dynamic(compile_backend: str) -> None:
    """Without `dynamic`, the second size makes the graph dynamic: two compiles, and a third for a size of one."""
    counter = CompileCounterWithBackend(compile_backend)
    compiled = torch.compile(lambda x: (x.sin() + x.sum(-1, keepdim=True)).relu(), backend=counter)
    for columns in (8, 13, 21, 34, 1024, 3):
        x = torch.randn(4, columns)
        torch.testing.assert_close(compiled(x), (x.sin() + x.sum(-1, keepdim=True)).relu(), rtol=1e-5, atol=1e-5)
    assert counter.frame_count == 2
    compiled(torch.randn(4, 1))
    assert counter.frame_count == 3


def test_sizes_zero_and_one(compile_backend: str) -> None:
    compiled = torch.compile(lambda x: (x * 2 + 1, x.sum(0), x.cumsum(0)), backend=compile_backend, dynamic=True)
    for rows in (5, 0, 1, 9, 0):
        x = torch.randn(rows, 3)
        for got, expected in zip(compiled(x), (x * 2 + 1, x.sum(0), x.cumsum(0)), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-5)


def test_sizes_that_depend_on_data(compile_backend: str) -> None:
    """`nonzero` and boolean masks: a graph break or an unbacked size, the result is eager's either way."""

    def select(x: torch.Tensor) -> torch.Tensor:
        return (x[x > 0] * 2).cumsum(0)

    compiled = torch.compile(select, backend=compile_backend)
    for count in (10, 100, 37):
        x = torch.randn(count)
        torch.testing.assert_close(compiled(x), select(x), rtol=1e-5, atol=1e-5)


def test_scalars_as_arguments(compile_backend: str) -> None:
    """Python numbers become symbols: a float that changes must not be baked in."""
    compiled = torch.compile(lambda x, n, s: x * s + n, backend=compile_backend)
    for n, s in ((1, 0.5), (2, 0.25), (7, -3.0), (2**40, 1e-3)):
        x = torch.randn(33)
        torch.testing.assert_close(compiled(x, n, s), x * s + n, rtol=1e-6, atol=1e-6)


def test_sizes_that_are_quotients(compile_backend: str) -> None:
    """Inductor would match the indices of `unfold` against block patterns for minutes."""

    def patches(x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(F.unfold(x, 2), 3)

    compiled = torch.compile(patches, backend=compile_backend, dynamic=True)
    for count in (2, 5):
        x = torch.randn(count, 3, 7, 8)
        torch.testing.assert_close(compiled(x), patches(x), rtol=1e-4, atol=1e-4)


def test_results_that_are_equal_sizes(compile_backend: str) -> None:
    """Of a graph that is trained: one number twice is no tensor twice."""

    def sizes(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, int, int]:
        product = x * y.sum(-1, keepdim=True)
        rows, same = x.size(0), y.size(0)
        torch._dynamo.graph_break()
        return product.cos(), rows, same

    compiled = torch.compile(sizes, backend=compile_backend, dynamic=True)
    for rows in (5, 7):
        assert compiled(torch.randn(rows, 3, requires_grad=True), torch.randn(rows, 4))[1:] == (rows, rows)
