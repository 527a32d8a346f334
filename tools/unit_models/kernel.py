"""A user's kernel with one ``tl.dot``, in a chip's arithmetic on the CPU target."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from torchport.triton.active_target import use
from unit_models.inputs import Dots

__all__ = ["tl_dot"]


@triton.jit
def one_dot(
    a, b, c, out, m, n,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr, IMPRECISE: tl.constexpr,
):  # fmt: skip
    """out = a @ b + c, [m, K], [K, n], [m, n] in blocks of [M, N], added up in c's type."""
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns, terms = tl.program_id(1) * N + tl.arange(0, N), tl.arange(0, K)
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    left = tl.load(a + rows[:, None] * K + terms[None, :], rows[:, None] < m, 0.0)
    right = tl.load(b + terms[:, None] * n + columns[None, :], columns[None, :] < n, 0.0)
    at = rows[:, None] * n + columns[None, :]
    total = tl.load(c + at, inside, 0.0)
    total = tl.dot(
        left, right, total, input_precision=PRECISION, max_num_imprecise_acc=IMPRECISE, out_dtype=c.dtype.element_ty
    )
    tl.store(out + at, total, inside)


def tl_dot(dots: Dots, arithmetic: str, *, tf32: bool, imprecise: int | None = None) -> np.ndarray:
    """The result of one ``tl.dot`` of the operands, in c's type.

    ``arithmetic``: the option of CPU kernels. ``imprecise``: tl.dot's ``max_num_imprecise_acc``.
    """
    (m, k), n = dots.a.shape, dots.b.shape[1]
    out = torch.empty_like(dots.c)
    with use("cpu"):
        one_dot[(-(-m // 64), -(-n // 64))](
            dots.a, dots.b, dots.c, out, m, n, M=64, N=64, K=k, PRECISION="tf32" if tf32 else "ieee",
            IMPRECISE=imprecise, arithmetic=arithmetic,
        )  # fmt: skip
    return out.numpy()
