"""Reductions: every kind and dtype, over every dimension, prime sizes, ties, NaN, strides, ill-conditioned data."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from inputs import FLOAT_CASES, INTEGERS, dtype_id, integers
from opcheck import Family, Op, check

pytestmark = pytest.mark.usefixtures("no_fallback")

Dim = int | tuple[int, ...] | None
SHAPES = {
    "3d": ((7, 13, 31), (0, 1, 2, (0, 2), None)),
    "row": ((3, 1009), (1, None)),
    "column": ((1009, 3), (0,)),
    "long": ((40_009,), (0,)),
    "one": ((5, 1, 1), (1, None)),
}
dtypes = pytest.mark.parametrize("dtype", FLOAT_CASES, ids=dtype_id)
shapes = pytest.mark.parametrize("shape", SHAPES)


def count(x: torch.Tensor, dim: Dim) -> float:
    """Number of elements that one result is made of."""
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return math.prod(x.shape[d] for d in dims)


def summed(
    dim: Dim, term: Callable[[torch.Tensor], torch.Tensor] = torch.abs
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Shadow of a sum: sqrt(n) * sum |terms|, the magnitude that rounding errors of random sign add up to."""
    return lambda x: (count(x, dim) ** 0.5) * torch.sum(term(x), dim=dim)


def floats(dim: Dim) -> Family:
    """Reductions to floats. Sums may be taken in any order, so that the sign of a zero result is not defined."""
    tag = f"dim={dim}"

    def spread(x: torch.Tensor) -> torch.Tensor:
        """sqrt(n) * condition * variance: what a Welford or two-pass variance may lose."""
        variance = torch.var(x, dim=dim, correction=0)
        condition = ((x * x).mean(dim=dim) / variance.clamp(min=1e-300)).sqrt()
        return count(x, dim) ** 0.5 * condition * variance

    return {
        f"sum {tag}": Op(lambda x: x.sum(dim=dim), shadow=summed(dim), signed_zero=False),
        f"mean {tag}": Op(lambda x: x.mean(dim=dim), 1.5, lambda x: summed(dim)(x) / count(x, dim), signed_zero=False),
        f"amax {tag}": Op(lambda x: x.amax(dim=dim if dim is not None else ()), 0, signed_zero=False),
        f"amin {tag}": Op(lambda x: x.amin(dim=dim if dim is not None else ()), 0, signed_zero=False),
        f"norm2 {tag}": Op(
            lambda x: torch.linalg.vector_norm(x, dim=dim),
            2,
            lambda x: count(x, dim) ** 0.5 * torch.linalg.vector_norm(x, dim=dim),
        ),
        f"norm1 {tag}": Op(lambda x: torch.linalg.vector_norm(x, 1, dim=dim), 1, summed(dim)),
        f"norminf {tag}": Op(lambda x: torch.linalg.vector_norm(x, math.inf, dim=dim), 0),
        f"var {tag}": Op(lambda x: x.var(dim=dim, correction=0), 4, spread),
        f"std keepdim {tag}": Op(
            lambda x: x.std(dim=dim, correction=0, keepdim=True).squeeze(),
            4,
            lambda x: spread(x) / torch.std(x, dim=dim, correction=0).clamp(min=1e-300),
        ),
        f"logsumexp {tag}": Op(
            lambda x: x.logsumexp(dim=dim if dim is not None else tuple(range(x.ndim))),
            2,
            lambda x: count(x, dim) ** 0.5 + 2 * torch.amax(x.abs(), dim=dim if dim is not None else ()),
        ),
        f"any {tag}": Op(lambda x: (x > 2.5).any() if dim is None else torch.any(x > 2.5, dim)),
        f"all {tag}": Op(lambda x: (x < 2.5).all() if dim is None else torch.all(x < 2.5, dim)),
        f"count {tag}": Op(lambda x: torch.count_nonzero(x > 0, dim=dim)),
    }


@dtypes
@shapes
def test_float_reductions(shape: str, dtype: torch.dtype, compile_backend: str) -> None:
    size, dims = SHAPES[shape]
    family = {name: op for dim in dims for name, op in floats(dim).items()}
    check(family, (torch.randn(size, dtype=torch.float64).to(dtype),), compile_backend)


@dtypes
def test_products(dtype: torch.dtype, compile_backend: str) -> None:
    """n factors: n roundings of the running product."""
    family: Family = {
        f"prod dim={dim}": Op(lambda x, dim=dim: x.prod(dim), 1, lambda x, dim=dim: x.shape[dim] * x.prod(dim).abs())
        for dim in (0, 1, 2)
    }
    x = torch.exp2(torch.randn(7, 13, 31, dtype=torch.float64) / 4) * (1 - 2 * (torch.rand(7, 13, 31) < 0.5).double())
    check(family, (x.to(dtype),), compile_backend)


@dtypes
def test_extremes_with_ties(dtype: torch.dtype, compile_backend: str) -> None:
    """Few distinct values: the index of a tie is the first one, as in eager; NaN wins over every number."""
    family: Family = {}
    for dim in (0, 1):
        family[f"argmax dim={dim}"] = Op(lambda x, n, dim=dim: x.argmax(dim))
        family[f"argmin dim={dim}"] = Op(lambda x, n, dim=dim: x.argmin(dim))
        family[f"max dim={dim}"] = Op(lambda x, n, dim=dim: x.max(dim).values, ulps=0)
        family[f"max index dim={dim}"] = Op(lambda x, n, dim=dim: x.max(dim).indices)
        family[f"min index dim={dim}"] = Op(lambda x, n, dim=dim: x.min(dim).indices)
        family[f"argmax of NaN dim={dim}"] = Op(lambda x, n, dim=dim: n.argmax(dim))
        family[f"argmin of NaN dim={dim}"] = Op(lambda x, n, dim=dim: n.argmin(dim))
        family[f"amax of NaN dim={dim}"] = Op(lambda x, n, dim=dim: n.amax(dim), ulps=0)
    family["argmax of all"] = Op(lambda x, n: x.argmax())
    family["argmin of all"] = Op(lambda x, n: x.argmin())
    x = torch.randint(-2, 3, (37, 53)).to(dtype)
    with_nan = x.clone()
    with_nan[::5, ::7] = math.nan
    check(family, (x, with_nan), compile_backend)


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool], ids=dtype_id)
def test_integer_reductions(dtype: torch.dtype, compile_backend: str) -> None:
    family: Family = {"argmax of all": Op(lambda x: x.int().argmax()), "sum of all": Op(torch.sum)}
    for dim in (0, 1):
        family |= {
            f"sum dim={dim}": Op(lambda x, dim=dim: x.sum(dim)),
            f"prod wraps dim={dim}": Op(lambda x, dim=dim: x.prod(dim)),
            f"any dim={dim}": Op(lambda x, dim=dim: x.bool().any(dim)),
            f"all dim={dim}": Op(lambda x, dim=dim: x.bool().all(dim)),
            f"amax dim={dim}": Op(lambda x, dim=dim: x.amax(dim)),
            f"amin dim={dim}": Op(lambda x, dim=dim: x.amin(dim)),
            f"nonzero dim={dim}": Op(lambda x, dim=dim: torch.count_nonzero(x, dim)),
        }
        if dtype != torch.bool:
            family[f"argmin dim={dim}"] = Op(lambda x, dim=dim: x.argmin(dim))
    x = torch.rand(29, 101) < 0.9 if dtype == torch.bool else integers(dtype, (29, 101))
    check(family, (x,), compile_backend)


@dtypes
@pytest.mark.parametrize("length", [1009, 20_011])
def test_variance_of_shifted_data(dtype: torch.dtype, length: int, compile_backend: str) -> None:
    """Mean 1000 times the deviation: mean(x^2) - mean(x)^2 in one pass would lose every digit in float32."""
    offset = {torch.float32: 1000.0, torch.float64: 1e6, torch.float16: 30.0, torch.bfloat16: 4.0}[dtype]
    family = {name: op for name, op in floats(-1).items() if name.startswith(("var", "std"))}
    family["layer norm"] = Op(
        lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
        4,
        lambda x: 4 * (offset + x.abs()) * length**0.5 / 4,
    )
    check(family, ((offset + torch.randn(3, length, dtype=torch.float64)).to(dtype),), compile_backend)


@dtypes
def test_strided_and_expanded(dtype: torch.dtype, compile_backend: str) -> None:
    views: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "transposed": lambda x: x.transpose(0, 2),
        "strided": lambda x: x[::2, 1:, ::3],
        "expanded": lambda x: x[:1].expand(5, -1, -1),
        "flipped": lambda x: x.flip(1),
    }
    family: Family = {}
    for name, view in views.items():
        for dim in (0, 2):
            family[f"{name} sum dim={dim}"] = Op(
                lambda x, v=view, dim=dim: v(x).sum(dim),
                shadow=lambda x, v=view, dim=dim: summed(dim)(v(x)),
                signed_zero=False,
            )
            family[f"{name} argmax dim={dim}"] = Op(lambda x, v=view, dim=dim: v(x).argmax(dim))
    check(family, (torch.randn(8, 11, 23, dtype=torch.float64).to(dtype),), compile_backend)


@dtypes
def test_softmax_family(dtype: torch.dtype, compile_backend: str) -> None:
    """Large logits and a row with -inf; an error of the exponent's argument is relative in the result."""

    def relative(x: torch.Tensor) -> torch.Tensor:
        return (8 + x.shape[-1] ** 0.5 + x.nan_to_num(neginf=0).abs()) * torch.softmax(x, -1)

    family: Family = {
        "softmax": Op(lambda x: torch.softmax(x, -1), 4, relative),
        "softmax of columns": Op(lambda x: torch.softmax(x.t().contiguous().t(), -1), 4, relative),
        "log_softmax": Op(lambda x: torch.log_softmax(x, -1), 4, lambda x: 32 + x.nan_to_num(neginf=0).abs()),
    }
    x = 8 * torch.randn(19, 211, dtype=torch.float64)
    x[3, 5:40] = -math.inf
    check(family, (x.to(dtype),), compile_backend)


def test_empty_and_zero_dimensional(compile_backend: str) -> None:
    family: Family = {
        "sum of nothing": Op(lambda e, m, s: e.sum()),
        "prod of nothing": Op(lambda e, m, s: e.prod()),
        "mean of nothing": Op(lambda e, m, s: e.mean()),
        "any of nothing": Op(lambda e, m, s: e.any()),
        "all of nothing": Op(lambda e, m, s: e.all()),
        "sum over an empty dimension": Op(lambda e, m, s: m.sum(1)),
        "sum beside an empty dimension": Op(lambda e, m, s: m.sum(0)),
        "pointwise on nothing": Op(lambda e, m, s: e.exp() + 1),
        "sum of a scalar": Op(lambda e, m, s: s.sum()),
        "amax of a scalar": Op(lambda e, m, s: s.amax()),
        "argmax of a scalar": Op(lambda e, m, s: s.argmax()),
        "std of a scalar": Op(lambda e, m, s: s.reshape(1).std()),
    }
    check(family, (torch.empty(0), torch.empty(3, 0), torch.tensor(2.5)), compile_backend)
