"""What backward passes of attention share: products of results with their gradients, and sums over copies."""

from __future__ import annotations

import torch

from torchport.ops.attention.backward import delta
from torchport.ops.attention.call import Call, Optional
from torchport.ops.attention.configurations import lanes_of, on_cpu
from torchport.ops.launch import launch

__all__ = ["added_up", "copies_for", "copies_of", "deltas_of", "side_by_side"]

_PROGRAMS = 8
"""Program instances of the backward kernel that a CPU gets at least, by copies of the gradient of queries."""

_ROWS = 64
_VECTORS = 32
"""Of a block of rows, where a program instance is one thread with vectors."""


def deltas_of(call: Call, grad: torch.Tensor, out: torch.Tensor, grad_sums: Optional) -> torch.Tensor:
    """sum(grad * out) of each row less the gradient of its logarithm of sums; all as [tokens, heads, ...]."""
    rows = call.tokens * call.heads
    found = torch.empty((call.tokens, call.heads), dtype=torch.float32, device=grad.device)
    shape = call.shape()
    lanes = lanes_of(grad.device)
    block = max(1, min(_ROWS, _VECTORS * lanes // shape["BLOCK_V"])) if lanes else _ROWS
    constants = {"VSIZE": shape["VSIZE"], "BLOCK_V": shape["BLOCK_V"], "BLOCK_M": block}
    launch(delta, (-(-rows // block), 1, 1), (grad, out, grad_sums, found, rows), constants)
    return found


def side_by_side(*tensors: Optional) -> tuple[Optional, ...]:
    """Numbers of rows, [tokens, heads], as [heads, tokens]: blocks of scores read them along their vectors."""
    return tuple(None if tensor is None else tensor.t().contiguous() for tensor in tensors)


def copies_of(call: Call) -> int:
    """How many copies of the gradient of queries are added up; 0 where a kernel of its own computes it.

    A CPU's program instance may read what it stored; the number follows from shapes alone, so that bits do.
    """
    if not on_cpu(call.query.device):
        return 0
    blocks = -(-call.keys // call.blocks("columns").keys)
    return max(1, min(blocks, -(-_PROGRAMS // max(1, call.owners * call.batch))))


def copies_for(call: Call, copies: int) -> Optional:
    """Zeros, [copies, tokens, heads, size], for gradients of queries; None for no copies."""
    if not copies:
        return None
    shape = copies, call.tokens, call.heads, call.query.shape[-1]
    return torch.zeros(shape, dtype=torch.float32, device=call.query.device)


def added_up(copies: torch.Tensor, factor: float, dtype: torch.dtype) -> torch.Tensor:
    """The sum of ``copies`` times ``factor``."""
    total = copies[0] if len(copies) == 1 else copies.sum(0)
    return total.mul_(factor).to(dtype)
