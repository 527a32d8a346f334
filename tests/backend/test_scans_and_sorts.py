"""Scans (cumsum, cumprod, logcumsumexp, cummax) and sorts (sort, argsort, topk, median, kthvalue, searchsorted)."""

from __future__ import annotations

import math

import pytest
import torch
from inputs import FLOAT_CASES, INTEGERS, dtype_id, integers
from opcheck import Family, Op, check

from torchport.compat import release

pytestmark = pytest.mark.usefixtures("no_fallback")

dtypes = pytest.mark.parametrize("dtype", FLOAT_CASES, ids=dtype_id)


@dtypes
@pytest.mark.parametrize("length", [1, 5, 37, 1009])
def test_scans(dtype: torch.dtype, length: int, compile_backend: str) -> None:
    """Eager adds in order, a parallel scan in a tree: both lose at most n roundings of the partial sums."""

    def partial(x: torch.Tensor, dim: int) -> torch.Tensor:
        return x.shape[dim] ** 0.5 * x.abs().cumsum(dim)

    family: Family = {}
    for dim in (0, 1):
        family |= {
            f"cumsum dim={dim}": Op(
                lambda x, dim=dim: x.cumsum(dim), 1, lambda x, dim=dim: partial(x, dim), signed_zero=False
            ),
            f"cumprod dim={dim}": Op(
                lambda x, dim=dim: (1 + x / 64).cumprod(dim),
                1,
                # The factor itself is rounded in the dtype of the input before it is multiplied.
                lambda x, dim=dim: x.shape[dim] * (1 + x / 64).cumprod(dim).abs() * down(dtype),
            ),
            f"logcumsumexp dim={dim}": Op(
                lambda x, dim=dim: x.logcumsumexp(dim), 4, lambda x, dim=dim: 4 * (x.shape[dim] ** 0.5 + x.abs().amax())
            ),
            f"exclusive sum dim={dim}": Op(
                lambda x, dim=dim: x.float().cumsum(dim) - x.float(),
                1,
                lambda x, dim=dim: 2 * partial(x, dim),
                signed_zero=False,
            ),
        }
    check(family, (torch.randn(length, 23, dtype=torch.float64).to(dtype),), compile_backend)


def down(dtype: torch.dtype) -> float:
    """How many times the roundoff of the dtype is that of the dtype it computes in."""
    return max(1.0, torch.finfo(dtype).eps / torch.finfo(torch.float32).eps) if dtype != torch.float64 else 1.0


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool], ids=dtype_id)
def test_integer_scans(dtype: torch.dtype, compile_backend: str) -> None:
    family: Family = {
        "cumsum": Op(lambda x: x.cumsum(1)),
        "cumsum of columns": Op(lambda x: x.cumsum(0)),
        "cumprod wraps": Op(lambda x: x.cumprod(1)),
    }
    if dtype != torch.bool:
        family |= {
            "cummax": Op(lambda x: x.cummax(1).values),
            "cummin index": Op(lambda x: x.cummin(1).indices),
        }
    x = torch.rand(7, 101) < 0.5 if dtype == torch.bool else integers(dtype, (7, 101))
    check(family, (x,), compile_backend)


@dtypes
@pytest.mark.parametrize("length", [1, 2, 31, 257])
def test_sorts(dtype: torch.dtype, length: int, compile_backend: str) -> None:
    """Few distinct values and NaN. Stable sorts fix the order of ties; of the others only the values are compared."""
    few = torch.randint(-3, 4, (5, length)).to(dtype)
    few[0, ::3] = math.nan
    many = torch.randn(5, length, dtype=torch.float64).to(dtype)
    k = min(3, length)
    family: Family = {
        "sort": Op(lambda f, m: f.sort(-1).values, ulps=0),
        "sort descending": Op(lambda f, m: f.sort(-1, descending=True).values, ulps=0),
        "stable order": Op(lambda f, m: torch.sort(f, dim=-1, stable=True).indices),
        "stable order, descending": Op(lambda f, m: torch.sort(f, dim=-1, stable=True, descending=True).indices),
        "argsort of columns": Op(lambda f, m: torch.argsort(f, dim=0, stable=True)),
        "sorted then gathered": Op(lambda f, m: m.gather(-1, m.argsort(-1)), ulps=0),
        "topk": Op(lambda f, m: m.topk(k).values, ulps=0),
        "topk smallest": Op(lambda f, m: m.topk(k, largest=False).values, ulps=0),
        "median": Op(lambda f, m: m.median(-1).values, ulps=0),
        "kthvalue": Op(lambda f, m: m.kthvalue(k).values, ulps=0),
        "cummax": Op(lambda f, m: m.cummax(-1).values, ulps=0),
        "cummin index": Op(lambda f, m: m.cummin(-1).indices),
    }
    if release("torch") > (2, 11):  # whose Dynamo does not trace it
        family["quantile"] = Op(
            lambda f, m: torch.quantile(m.float(), 0.3, dim=-1), 2, lambda f, m: 4 * m.abs().amax(-1)
        )
    check(family, (few, many), compile_backend)


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool], ids=dtype_id)
def test_integer_sorts(dtype: torch.dtype, compile_backend: str) -> None:
    x = torch.rand(5, 61) < 0.5 if dtype == torch.bool else integers(dtype, (5, 61))
    family: Family = {
        "sort": Op(lambda x: x.sort(-1).values),
        "sort descending": Op(lambda x: x.sort(-1, descending=True).values),
        "stable order": Op(lambda x: torch.sort(x, dim=-1, stable=True).indices),
    }
    if dtype != torch.bool:
        family["topk"] = Op(lambda x: x.topk(4).values)
        family["unique counts"] = Op(lambda x: (x.sort(-1).values.diff(dim=-1) != 0).sum(-1))
    check(family, (x,), compile_backend)


@pytest.mark.may_fall_back  # a binary search is a while loop over tensors
def test_search(compile_backend: str) -> None:
    edges = torch.sort(torch.randint(-20, 20, (33,)).float()).values
    family: Family = {
        "searchsorted": Op(lambda e, x: torch.searchsorted(e, x)),
        "searchsorted right": Op(lambda e, x: torch.searchsorted(e, x, right=True)),
        "bucketize": Op(lambda e, x: torch.bucketize(x, e, right=True)),
        "histogram": Op(lambda e, x: torch.zeros(34, dtype=torch.int64).index_add(
            0, torch.bucketize(x, e), torch.ones(x.numel(), dtype=torch.int64))),
    }  # fmt: skip
    check(family, (edges, torch.randint(-25, 25, (211,)).float()), compile_backend)
