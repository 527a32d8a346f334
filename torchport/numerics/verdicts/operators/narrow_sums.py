"""Sums that aten keeps in memory of a narrow type, so that each addition rounds to it."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch

from torchport.numerics.verdicts.operators.calls import OperatorCall

__all__ = ["narrow_sums"]

_NARROW = frozenset((torch.bfloat16, torch.float16))


def narrow_sums(called: OperatorCall, threads: Collection[int]) -> list[dict[int, torch.Tensor]]:
    """Results of an operator as aten's CPU kernel adds them up, for each number of ``threads``: by result.

    ``native_layer_norm_backward`` adds the gradients of weight and bias row by row to a buffer of the input's type, one
    for each thread (ATen, ``LayerNormBackwardKernelImplInternal``). With many rows in bfloat16 they are off by
    percents, and biased, as small terms no longer count beside a large sum. Nothing for other operators and types.
    """
    if called.name != "native_layer_norm_backward" or called.dtype not in _NARROW:
        return []
    gradient, given, mean, rstd = (called.argument(name) for name in ("grad_out", "input", "mean", "rstd"))
    columns = math.prod(called.argument("normalized_shape"))
    if given.dtype not in _NARROW or not columns or given.numel() == 0:
        return []
    g = gradient.reshape(-1, columns).float()
    scale = rstd.reshape(-1, 1).float()
    normalized = given.reshape(-1, columns).float() * scale - mean.reshape(-1, 1).float() * scale
    return [
        {index: _added(rows, given.dtype, count) for index, rows in ((1, g * normalized), (2, g))}
        for count in sorted(set(threads))
    ]


def _added(rows: torch.Tensor, dtype: torch.dtype, threads: int) -> torch.Tensor:
    """The sum over rows, f32: one running sum of ``dtype`` for each thread."""
    step = -(-len(rows) // max(1, threads))
    parts = -(-len(rows) // step)
    padded = torch.cat([rows, rows.new_zeros(parts * step - len(rows), rows.shape[1])]).reshape(parts, step, -1)
    running = torch.zeros(parts, rows.shape[1], dtype=dtype)
    for row in padded.unbind(1):
        running = (running.float() + row).to(dtype)
    total = torch.zeros(rows.shape[1])
    for part in running:
        total += part.float()
    return total
