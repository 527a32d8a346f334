"""Random numbers: the same with the same seed, others with another, and the right distribution.

The streams are Inductor's own and differ from eager's: statistics are compared, with bounds of 6 standard deviations
(a correct generator fails one such check in 5e8).
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures("no_fallback")

COUNT = 200_003
SIGMAS = 6.0


def seeded(fn: object, seed: int, *args: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(seed)
    return fn(*args)  # type: ignore[operator]


def check_mean(x: torch.Tensor, mean: float, deviation: float) -> None:
    allowed = SIGMAS * deviation / math.sqrt(x.numel())
    assert abs(float(x.double().mean()) - mean) <= allowed, (
        f"mean {float(x.double().mean())}, expected {mean}+-{allowed}"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_uniform(dtype: torch.dtype, compile_backend: str) -> None:
    fn = torch.compile(lambda: torch.rand(COUNT, dtype=dtype), backend=compile_backend)
    x = seeded(fn, 1)
    assert torch.equal(x, seeded(fn, 1)), "the same seed gave other numbers"
    assert not torch.equal(x, seeded(fn, 2)), "another seed gave the same numbers"
    assert not torch.equal(x, fn()), "two calls in a row gave the same numbers"
    assert float(x.min()) >= 0.0 and float(x.max()) <= 1.0
    check_mean(x, 0.5, math.sqrt(1 / 12))
    check_mean((x.double() - 0.5).square(), 1 / 12, math.sqrt(1 / 180))
    # Neighbours are not correlated: counters of lanes and of blocks must not repeat.
    check_mean((x[1:].double() - 0.5) * (x[:-1].double() - 0.5), 0.0, 1 / 12)


def test_normal(compile_backend: str) -> None:
    fn = torch.compile(lambda: torch.randn(COUNT), backend=compile_backend)
    x = seeded(fn, 1)
    assert torch.equal(x, seeded(fn, 1))
    assert bool(torch.isfinite(x).all())
    check_mean(x, 0.0, 1.0)
    check_mean(x.double().square(), 1.0, math.sqrt(2))
    check_mean(x.double() ** 4, 3.0, math.sqrt(96))
    check_mean((x.abs() > 3).double(), math.erfc(3 / math.sqrt(2)), math.sqrt(0.0027))


def test_integers(compile_backend: str) -> None:
    fn = torch.compile(lambda: torch.randint(-3, 4, (COUNT,)), backend=compile_backend)
    x = seeded(fn, 1)
    assert torch.equal(x, seeded(fn, 1))
    counts = torch.bincount(x + 3, minlength=7)
    assert counts.numel() == 7
    for count in counts.tolist():
        assert abs(count - COUNT / 7) <= SIGMAS * math.sqrt(COUNT * (1 / 7) * (6 / 7)), counts.tolist()


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_dropout(p: float, compile_backend: str) -> None:
    """Kept with probability 1 - p and scaled by 1 / (1 - p); the gradient uses the same mask."""
    fn = torch.compile(lambda x: F.dropout(x, p, training=True), backend=compile_backend)
    x = (torch.rand(COUNT) + 0.5).requires_grad_()
    torch.manual_seed(3)
    y = fn(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    kept = y != 0
    check_mean(kept.double(), 1 - p, math.sqrt(p * (1 - p)))
    scale = 1 / (1 - p) if p < 1 else 0.0
    torch.testing.assert_close(y, torch.where(kept, x * scale, 0.0))
    torch.testing.assert_close(gradient, torch.where(kept, scale, 0.0))
    assert torch.equal(y, seeded(fn, 3, x)), "the same seed gave another mask"


def test_two_masks_differ(compile_backend: str) -> None:
    fn = torch.compile(lambda x: (F.dropout(x, 0.5), F.dropout(x, 0.5)), backend=compile_backend)
    a, b = fn(torch.ones(COUNT))
    check_mean(((a != 0) == (b != 0)).double(), 0.5, 0.5)


def test_threads_do_not_change_the_numbers(compile_backend: str) -> None:
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(seeded(torch.compile(lambda: torch.rand(COUNT), backend=compile_backend), 5))
    assert torch.equal(*results)
