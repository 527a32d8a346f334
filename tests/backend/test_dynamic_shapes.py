"""One compiled function for many sizes: sizes as values, around blocks, zero and one, symbolic strides."""

from __future__ import annotations

import pytest
import torch
from accuracy import errors
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures("no_fallback")

SIZES = [(2, 3), (5, 31), (33, 64), (128, 129), (7, 1000), (64, 4097), (3, 17)]


def program(x: torch.Tensor, w: torch.Tensor) -> dict[str, torch.Tensor]:
    rows, columns = x.shape
    return {
        "softmax": torch.softmax(x, -1),
        "layer norm": F.layer_norm(x, (columns,)) * w,
        "column sums": x.sum(0),
        "mean of all": x.mean(),
        "size as a value": x * rows + columns,
        "arange": torch.arange(columns, device=x.device) + x.sum(0).long() * 0,
        "cat": torch.cat([x, x[:1]], 0),
        "transposed": x.t().contiguous().flatten(),
        "argmax": x.argmax(-1),
        "cumsum": x.cumsum(-1),
        "var": x.var(-1),
        "pad": F.pad(x, (1, rows)),
        "reshape": x.reshape(-1)[: rows * columns // 2].abs(),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_many_sizes_one_compile(dtype: torch.dtype, compile_backend: str) -> None:
    counter = CompileCounterWithBackend(compile_backend)
    compiled = torch.compile(program, backend=counter, dynamic=True, fullgraph=True)
    problems = []
    for rows, columns in SIZES:
        x, w = torch.randn(rows, columns).to(dtype), torch.randn(columns).to(dtype)
        eager, exact, got = program(x, w), program(x.double(), w.double()), compiled(x, w)
        for name, value in eager.items():
            if not value.is_floating_point():
                wrong = not torch.equal(got[name], value)
                problems += [f"{name} differs at {rows} x {columns}"] if wrong else []
                continue
            u = torch.finfo(dtype).eps / 2
            own, found = errors(value, exact[name]), errors(got[name], exact[name])
            if found.l2 > max(2 * own.l2, 2 * u) or got[name].shape != value.shape:
                problems.append(f"{name} at {rows} x {columns}: {found}, eager {own}")
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
