"""How others decide, each with the reference it takes: True where the check finds nothing wrong.

Dynamo: ``torch._dynamo.utils.same`` with a float64 reference, called as its accuracy checks do. FlagGems: relative by
dtype (its ``RESOLUTION``) and 1e-4 times the reduced length absolute (``gems_assert_close``). msprobe: the dual
benchmark's ratios at its middle level, the chip's errors over a GPU's (here: the CPU target's), each against a result
one type up.
"""

from __future__ import annotations

import torch

__all__ = ["RIVALS", "cosine", "dynamo_same", "flag_gems", "msprobe"]

_RESOLUTION = {torch.float16: 1e-3, torch.float32: 1.3e-6, torch.bfloat16: 0.016, torch.float8_e4m3fn: 1e-3}


def dynamo_same(y: torch.Tensor, reference: torch.Tensor, native: torch.Tensor, terms: int) -> bool:
    """``same`` of PyTorch's own accuracy checks (tolerance 1e-3, or 1e-2 for 16-bit types)."""
    from torch._dynamo.utils import same

    tolerance = 1e-3 if y.dtype == torch.float32 else 1e-2
    return bool(same(native, y, reference, cos_similarity=False, tol=tolerance, equal_nan=True, log_error=_quiet))


def _quiet(*args: object) -> None:
    """Nothing to say."""


def flag_gems(y: torch.Tensor, reference: torch.Tensor, native: torch.Tensor, terms: int) -> bool:
    """``gems_assert_close(res, ref, dtype, equal_nan=True, reduce_dim=terms)``."""
    if not y.dtype.is_floating_point:
        return bool(torch.equal(y, reference.to(y.dtype)))
    reference = reference.to(y.dtype)
    return torch.allclose(y.double(), reference.double(), rtol=_RESOLUTION[y.dtype], atol=1e-4 * terms, equal_nan=True)


def msprobe(y: torch.Tensor, reference: torch.Tensor, native: torch.Tensor, terms: int) -> bool:
    """Maximum relative error at most 10 times, mean relative and root mean square at most twice the benchmark's."""
    if not y.dtype.is_floating_point:
        return bool(torch.equal(y, native))

    def figures(values: torch.Tensor) -> tuple[float, float, float]:
        error = (values.double() - reference).abs()
        relative = error / (reference.abs() + torch.finfo(torch.float64).tiny)
        return float(relative.max()), float(relative.mean()), float(error.square().mean().sqrt())

    for chip, benchmark, most in zip(figures(y), figures(native), (10.0, 2.0, 2.0), strict=True):
        if chip != chip or benchmark != benchmark or benchmark == 0:  # ratios that are NaN pass
            continue
        if chip / benchmark > most:
            return False
    return True


def cosine(y: torch.Tensor, reference: torch.Tensor, native: torch.Tensor, terms: int) -> bool:
    """Cosine above 0.99."""
    a, b = y.double().reshape(-1), reference.double().reshape(-1)
    return bool(torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.99)


RIVALS = {
    "Dynamo same()": dynamo_same, "FlagGems": flag_gems, "msprobe": msprobe, "cosine > 0.99": cosine,
}  # fmt: skip
