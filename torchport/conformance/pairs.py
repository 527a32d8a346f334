"""What an instruction for pairs of bf16 gives, from its manual: the reference of ``vdpbf16ps``."""

from __future__ import annotations

import torch

__all__ = ["added_in_pairs"]


def added_in_pairs(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """``c + a @ b`` [.., M, N] of bf16 and f32, by the steps of Intel's manual (VDPBF16PS), K even.

    The odd term of a pair is first. Each is added with one rounding to nearest even; denormals are taken for zeros of
    their sign, and become zeros.
    """
    a, b = _flushed(a.float()), _flushed(b.float())
    for pair in range(0, a.shape[-1], 2):
        for k in (pair + 1, pair):
            c = _flushed(_rounded_once(a[..., :, k : k + 1].double() * b[..., k : k + 1, :].double(), _flushed(c)))
    return c


def _flushed(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < 2.0**-126, torch.copysign(torch.zeros(()), x), x)


def _rounded_once(product: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """``product + total`` of f64 and f32, rounded to f32 once: the sum in f64 is rounded to odd before.

    The product of two bf16 is exact in f64.
    """
    x, y = product, total.double()
    s = x + y
    v = s - x
    error = (x - (s - v)) + (y - v)
    odd = (s.view(torch.int64) & 1) == 1
    nudge = (error != 0) & ~odd & s.isfinite() & error.isfinite()
    toward = torch.where((error > 0), torch.inf, -torch.inf).double()
    return torch.where(nudge, torch.nextafter(s, toward), s).float()
