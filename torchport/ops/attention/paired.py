"""Attention in bfloat16 by products of pairs (``forward_pairs``): which calls, by which blocks, and the launch."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from torchport.ops.attention.call import Optional, in_powers_of_two, straight
from torchport.ops.attention.forward_pairs import LIFT, MOST, forward_pairs
from torchport.ops.launch import PLAIN, launch, runs_on_host, target_of
from torchport.ops.layout import block_for
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["attended_by_pairs", "has_pairs", "pair_blocks"]

_STEEPEST = 2.0**60
"""The largest scale of scores that the kernel's proof is for."""
_PACKING = 12
"""Time to turn and interleave a block of keys and values, in rows of its products."""


@dataclass(frozen=True)
class PairBlocks:
    """Rows and keys of a block, and keys of one that a mask is needed for."""

    rows: int
    keys: int
    rest: int

    def constants(self) -> dict[str, int]:
        return {"BLOCK_M": self.rows, "BLOCK_N": self.keys, "REST": self.rest}


@functools.cache
def has_pairs(target: str) -> bool:
    """Whether the CPU that ``target`` names has the instruction, and is known to be fast with it."""
    parsed = Target.parse(target)
    if parsed.backend != "cpu":
        return False
    able = backend_for(parsed).capabilities(parsed)
    return able.bf16_pairs and able.fast_pairs


@functools.cache
def pair_blocks(length: int, keys: int, causal: bool) -> PairBlocks:
    """Blocks for ``length`` rows and ``keys`` keys: those that leave little empty (measured, docs/attention.md)."""
    if causal:
        rows = _fitting(length, (64, 32, 16))
        return PairBlocks(rows, 128 if keys >= 256 else 64, max(32, rows))
    rows = _fitting(length, (128, 64, 32, 16))
    choices = [(_time(keys // block, block) + _of_rest(keys % block)[0], block) for block in (128, 64)]
    block = min(choices, key=lambda choice: choice[0])[1]
    return PairBlocks(rows, block, _of_rest(keys % block)[1])


def _time(blocks: int, size: int) -> int:
    return blocks * (size + _PACKING)


def _fitting(count: int, blocks: tuple[int, ...]) -> int:
    return min(blocks, key=lambda block: _time(-(-count // block), block))


def _of_rest(count: int) -> tuple[int, int]:
    """The time for ``count`` keys, and the block that takes it."""
    block = _fitting(count, (16, 32, 64))
    return _time(-(-count // block), block), block


def attended_by_pairs(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Optional, scale: float, causal: bool
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """softmax(query key^T scale + mask) value and the logarithms of its sums; None where that is to be exact.

    query: [batch, heads, length, size]; key, value: [batch, owners, keys, size], all bfloat16. mask: [batch, heads,
    length, keys], each may be 1, of numbers or of booleans. causal: row m sees keys up to m.

    None where another kernel has to compute it: for other types and sizes, where the CPU has no instruction for it, on
    tensors without memory, and for numbers that the instruction would lose (``forward_pairs``).
    """
    tensors = (query, key, value) if mask is None else (query, key, value, mask)
    sizes = query.shape[-1], key.shape[-1], value.shape[-1]
    if (
        any(type(one) not in PLAIN or one.device.type != "cpu" for one in tensors)
        or any(one.dtype != torch.bfloat16 or one.dim() != 4 or not one.numel() for one in tensors[:3])
        or len(set(sizes)) > 1
        or not abs(scale) <= _STEEPEST
        or not (runs_on_host() and has_pairs(target_of(query.device)))
    ):
        return None
    query, key, value = (straight(one) for one in (query, key, value))
    batch, heads, length, size = query.shape
    keys = key.shape[2]
    blocks = pair_blocks(length, keys, causal)
    grid = -(-length // blocks.rows), heads, batch
    out = torch.empty((batch * length, heads, size), dtype=query.dtype)
    sums = torch.empty((batch * length, heads), dtype=torch.float32)
    unsuited = torch.empty(grid[0] * heads * batch, dtype=torch.int32)
    strides = [stride for one in (query, key, value) for stride in one.stride()[:3]]
    of_mask = [0] * 4 if mask is None else [0 if n == 1 else s for n, s in zip(mask.shape, mask.stride(), strict=True)]
    args = (
        query, key, value, mask, out, sums, unsuited, *strides, *of_mask, heads, heads // key.shape[1], length, keys,
        in_powers_of_two(scale, 0.0)[0],
    )  # fmt: skip
    constants = {"SIZE": size, "RIGHT": causal, "BLOCK_D": block_for(size), **blocks.constants()}
    launch(forward_pairs, grid, args, constants | {"LIFT": LIFT, "MOST": MOST}, pairs=True)
    if unsuited.any():
        return None
    out, sums = out.view(batch, length, heads, size), sums.view(batch, length, heads)
    return out.transpose(1, 2), sums.transpose(1, 2)
