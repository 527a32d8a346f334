"""Gather, index, scatter, index_add, index_put, embedding and their gradients; negative and too large indices."""

from __future__ import annotations

import processes
import pytest
import torch
from inputs import FLOAT_CASES, dtype_id
from opcheck import Family, Op, check
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures("no_fallback")

ROWS = 41
dtypes = pytest.mark.parametrize("dtype", FLOAT_CASES, ids=dtype_id)

READS: Family = {
    "index": Op(lambda x, i: x[i], ulps=0),
    "index negative": Op(lambda x, i: x[i - ROWS], ulps=0),
    "index two": Op(lambda x, i: x[i, i % 7], ulps=0),
    "index by int32": Op(lambda x, i: x[i.to(torch.int32)], ulps=0),
    "index with a slice": Op(lambda x, i: x[:, i % 19], ulps=0),
    "index_select": Op(lambda x, i: x.index_select(0, i), ulps=0),
    "gather": Op(lambda x, i: x.gather(0, (i % 23)[:, None].expand(-1, 19)), ulps=0),
    "take_along_dim": Op(lambda x, i: torch.take_along_dim(x, i[None, :19] % 19, dim=1), ulps=0),
    "embedding": Op(lambda x, i: F.embedding(i, x), ulps=0),
    "one_hot": Op(lambda x, i: F.one_hot(i, ROWS)),
    "masked": Op(lambda x, i: torch.where(x > 0, x, x[i[:1]]), ulps=0),
    "chain": Op(lambda x, i: x[i[i % 23] % 11], ulps=0),
}


@dtypes
def test_reads(dtype: torch.dtype, compile_backend: str) -> None:
    check(READS, (torch.randn(ROWS, 19).to(dtype), torch.randint(0, ROWS, (101,))), compile_backend)


@dtypes
def test_accumulating_writes(dtype: torch.dtype, compile_backend: str) -> None:
    """Many writes to one place: in the dtype itself, so a rounding for each of the n terms, in any order."""

    def magnitude(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros(ROWS, 19).index_add(0, i, x.abs())
        width = 1.0 if dtype in (torch.float32, torch.float64) else torch.finfo(dtype).eps / 2**-23
        return width * 8 * (sums + 1)

    zeros = torch.zeros(ROWS, 19, dtype=dtype)
    family: Family = {
        "index_add": Op(lambda x, i: torch.zeros_like(zeros, dtype=x.dtype).index_add(0, i, x), 1, magnitude),
        "index_put": Op(
            lambda x, i: torch.ones_like(zeros, dtype=x.dtype).index_put((i,), x, accumulate=True), 1, magnitude
        ),
        "scatter_add": Op(
            lambda x, i: torch.zeros_like(zeros, dtype=x.dtype).scatter_add(0, i[:, None].expand(-1, 19), x),
            1,
            magnitude,
        ),
        "amax": Op(
            lambda x, i: torch.zeros_like(zeros, dtype=x.dtype).scatter_reduce(
                0, i[:, None].expand(-1, 19), x, "amax", include_self=False
            ),
            ulps=0,
        ),
        "amin": Op(
            lambda x, i: torch.full_like(zeros, 0.25, dtype=x.dtype).scatter_reduce(
                0, i[:, None].expand(-1, 19), x, "amin"
            ),
            ulps=0,
        ),
    }
    signed_zero_free = {name: Op(op.fn, op.ulps, op.shadow, signed_zero=False) for name, op in family.items()}
    check(signed_zero_free, (torch.randn(101, 19).to(dtype), torch.randint(0, ROWS, (101,))), compile_backend)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float32], ids=dtype_id
)
def test_writes_without_duplicates(dtype: torch.dtype, compile_backend: str) -> None:
    family: Family = {
        "scatter": Op(lambda x, i: torch.zeros(ROWS, dtype=x.dtype).scatter(0, i, x), ulps=0),
        "scatter a value": Op(lambda x, i: torch.zeros(ROWS, dtype=x.dtype).scatter(0, i, 3), ulps=0),
        "index_put": Op(lambda x, i: torch.zeros(ROWS, dtype=x.dtype).index_put((i,), x), ulps=0),
        "index_put negative": Op(lambda x, i: torch.zeros(ROWS, dtype=x.dtype).index_put((i - ROWS,), x), ulps=0),
        "index_copy": Op(lambda x, i: torch.zeros(ROWS, dtype=x.dtype).index_copy(0, i, x), ulps=0),
        "index_fill": Op(lambda x, i: torch.zeros(ROWS, dtype=x.dtype).index_fill(0, i, 3), ulps=0),
        "masked_scatter": Op(lambda x, i: torch.zeros(17, dtype=x.dtype).masked_scatter(i % 2 == 0, x), ulps=0),
        "select_scatter": Op(lambda x, i: torch.zeros(3, 17, dtype=x.dtype).select_scatter(x, 0, 1), ulps=0),
        "slice_scatter": Op(lambda x, i: torch.zeros(40, dtype=x.dtype).slice_scatter(x, 0, 3, 37, 2), ulps=0),
    }
    check(family, (torch.arange(17).to(dtype), torch.randperm(ROWS)[:17]), compile_backend)


@pytest.mark.may_fall_back  # Triton has no atomic addition of 8- and 16-bit integers
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=dtype_id)
def test_integers_accumulate(dtype: torch.dtype, compile_backend: str) -> None:
    """Duplicates add up and wrap: exact in any order."""
    family: Family = {
        "index_put": Op(lambda x, i: torch.ones(ROWS, dtype=x.dtype).index_put((i,), x, accumulate=True)),
        "index_add": Op(lambda x, i: torch.zeros(ROWS, dtype=x.dtype).index_add(0, i, x)),
        "scatter_add": Op(lambda x, i: torch.zeros(ROWS, dtype=x.dtype).scatter_add(0, i, x)),
    }
    check(family, (torch.arange(307).to(dtype), torch.randint(0, ROWS, (307,))), compile_backend)


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.bfloat16, torch.float64))],
    ids=dtype_id,
)
def test_gradients_of_reads(dtype: torch.dtype, compile_backend: str) -> None:
    """Backward of indexing is a write that accumulates; the padding row gets no gradient."""
    reads = {
        "index": lambda x, i: x[i],
        "gather": lambda x, i: x.gather(0, i[:, None].expand(-1, x.shape[1])),
        "embedding": lambda x, i: F.embedding(i, x, padding_idx=3),
        "scaled by frequency": lambda x, i: F.embedding(i, x, scale_grad_by_freq=True),
        "bag sum": lambda x, i: F.embedding_bag(i.reshape(-1, 4), x, mode="sum"),
        "bag mean": lambda x, i: F.embedding_bag(i.reshape(-1, 4), x, mode="mean"),
        "index_select": lambda x, i: x.index_select(0, i),
    }

    def gradient(x: torch.Tensor, i: torch.Tensor, weight: torch.Tensor, read: object) -> torch.Tensor:
        leaf = x.detach().requires_grad_()
        out = read(leaf, i)
        (found,) = torch.autograd.grad((out * weight[: out.shape[0]]).sum(), leaf)
        return found

    problems = []
    weight = torch.randn(104, 19).to(dtype)
    x, i = torch.randn(ROWS, 19).to(dtype), torch.randint(0, 7, (104,))
    reps = torch.bincount(i).max().item()
    for name, read in reads.items():
        compiled = torch.compile(read, backend=compile_backend)
        got = gradient(x, i, weight, compiled).double()
        exact = gradient(x.double(), i, weight.double(), read)
        # At most `reps` terms of magnitude up to max|weight| meet in one row: as many roundings in the dtype.
        allowed = reps**0.5 * torch.finfo(dtype).eps * (exact.abs() + reps * weight.abs().max().double())
        if bool(((got - exact).abs() > allowed).any()):
            problems.append(
                f"{name}: off by {float((got - exact).abs().max()):.3g}, allowed {float(allowed.min()):.3g}"
            )
    assert not problems, f"{compile_backend} {dtype}:\n" + "\n".join(problems)


def test_writes_are_the_same_in_every_run(compile_backend: str) -> None:
    """Accumulating floats with duplicates on every thread: the order of the sums must not depend on timing."""

    def write(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return torch.zeros(17, 8).index_add(0, i, x.sin())

    x, i = torch.randn(20_000, 8), torch.randint(0, 17, (20_000,))
    compiled = torch.compile(write, backend=compile_backend)
    first = compiled(x, i)
    assert all(torch.equal(first, compiled(x, i)) for _ in range(8))


OUT_OF_RANGE = {
    "index": "x[i]",
    "gather": "x.gather(0, i)",
    "index_select": "x.index_select(0, i)",
    "embedding": "torch.nn.functional.embedding(i, x[:, None])",
    "index_put": "x.index_put((i,), x[:i.numel()])",
    "scatter": "torch.zeros(7).scatter(0, i, x[:i.numel()])",
}


_QUICK = {("index", -8), ("scatter", 2**40), *((name, 7) for name in OUT_OF_RANGE)}


@pytest.mark.parametrize(
    ("name", "index"),
    [
        pytest.param(name, index, marks=() if (name, index) in _QUICK else pytest.mark.slow)
        for name in OUT_OF_RANGE
        for index in (7, -8, 2**40)
    ],
)
def test_index_out_of_range_raises(name: str, index: int, compile_backend: str) -> None:
    """The error reaches Python, the process survives, and the function works afterwards: in a process of its own."""
    code = (
        "import torch\n"
        f"def read(x, i):\n    return {OUT_OF_RANGE[name]} + 1\n"
        f"compiled = torch.compile(read, backend={compile_backend!r})\n"
        f"x, bad, good = torch.arange(7.0), torch.tensor([0, {index}, 2]), torch.tensor([0, 1, 2])\n"
        "try:\n    compiled(x, bad)\n"
        "except (RuntimeError, IndexError):\n    pass\n"
        "else:\n    raise SystemExit('no error')\n"
        "assert torch.equal(compiled(x, good), read(x, good)), 'wrong after an error'\n"
    )
    done = processes.run(code)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-500:]}"
