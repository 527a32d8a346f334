"""How attention kernels are called: what was asked for, checked, and as arguments and constants of launches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from torchport.ops.attention.configurations import Blocks, blocks_for
from torchport.ops.layout import block_for

__all__ = [
    "WIDE",
    "Call",
    "Optional",
    "Options",
    "call_of",
    "in_powers_of_two",
    "of_four",
    "straight",
    "straight_list",
    "whole_scale",
]

Optional = torch.Tensor | None

_LOG2E = 1.4426950408889634
_UNBOUNDED = 0x3FFFFFFF
"""Of a window; sums with places of tokens stay within 32 bits."""

WIDE = {torch.float8_e4m3fn: torch.bfloat16, torch.float8_e5m2: torch.bfloat16}
"""The dtype of results for inputs whose dtype has too few bits for them."""


@dataclass(frozen=True)
class Options:
    """What is not a tensor.

    scale: of query times key. cap: scores become cap * tanh(score / cap); 0 for none.
    left, right: row m sees keys from m + shift - left to m + shift + right; -1 for all. shift is the difference of the
    numbers of keys and queries, or 0 if ``top_left``.
    dropout: the share of weights that become 0.
    """

    scale: float
    cap: float
    left: int
    right: int
    top_left: bool
    dropout: float


@dataclass(frozen=True)
class Call:
    """One call's tensors. query: [batch, heads, length, size], or [tokens, heads, size] packed with ``starts``.

    starts: of packed sequences in query and in key and value, [batch + 1], int32 or int64; None if not packed.
    length: the longest sequence of queries. keys: that of keys.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None
    sinks: torch.Tensor | None
    slopes: torch.Tensor | None
    query_starts: torch.Tensor | None
    key_starts: torch.Tensor | None
    length: int
    keys: int
    options: Options

    @property
    def packed(self) -> bool:
        return self.query_starts is not None

    @property
    def batch(self) -> int:
        return self.query.shape[0] if self.query_starts is None else self.query_starts.shape[0] - 1

    @property
    def heads(self) -> int:
        return self.query.shape[1]

    @property
    def owners(self) -> int:
        """Heads of key and value."""
        return self.key.shape[1]

    @property
    def tokens(self) -> int:
        return self.query.shape[0] * (1 if self.packed else self.query.shape[2])

    @property
    def key_tokens(self) -> int:
        return self.key.shape[0] * (1 if self.packed else self.key.shape[2])

    def strides(self, tensor: torch.Tensor) -> tuple[int, int, int]:
        """Of the batch, of heads and of rows."""
        if self.packed:
            return 0, tensor.stride(1), tensor.stride(0)
        return tensor.stride(0), tensor.stride(1), tensor.stride(2)

    def bias_strides(self) -> tuple[int, int, int, int]:
        if self.bias is None:
            return 0, 0, 0, 0
        a, b, c, d = (
            0 if size == 1 else stride for size, stride in zip(self.bias.shape, self.bias.stride(), strict=True)
        )
        return a, b, c, d

    def sizes(self) -> tuple[int, ...]:
        """Arguments that tell how long and how many."""
        slope = self.slopes.stride(0) if self.slopes is not None and self.slopes.dim() == 2 else 0
        return slope, self.heads, self.heads // self.owners, self.length, self.keys

    def window(self) -> tuple[int, int]:
        left, right = self.options.left, self.options.right
        return min(max(left, 0), _UNBOUNDED), min(max(right, 0), _UNBOUNDED)

    def scaling(self) -> tuple[float, float]:
        """Scale and cap as kernels take them: in powers of two."""
        return in_powers_of_two(self.options.scale, self.options.cap)

    def shape(self) -> dict[str, Any]:
        """Constants that all kernels share."""
        options = self.options
        return {
            "SIZE": self.query.shape[-1],
            "VSIZE": self.value.shape[-1],
            "CAPPED": options.cap != 0,
            "LEFT": options.left >= 0,
            "RIGHT": options.right >= 0,
            "TOP_LEFT": options.top_left,
            "DROPS": options.dropout > 0,
            "BLOCK_D": block_for(self.query.shape[-1]),
            "BLOCK_V": block_for(self.value.shape[-1]),
        }

    def new(self, size: int, dtype: torch.dtype) -> torch.Tensor:
        """An empty result for the queries' tokens, in the order that kernels write."""
        return torch.empty((self.tokens, self.heads, size), dtype=dtype, device=self.query.device)

    def blocks(self, kernel: str) -> Blocks:
        """Blocks of a kernel, by its name in ``blocks_for``."""
        size = max(self.query.shape[-1], self.value.shape[-1])
        return blocks_for(kernel, self.query.device, self.length, size, self.query.dtype.itemsize, self.keys)

    def flat(self, tensor: torch.Tensor) -> torch.Tensor:
        """The caller's [batch, heads, length, ...] as [tokens, heads, ...], contiguous."""
        if self.packed:
            return tensor.contiguous()
        return tensor.transpose(1, 2).contiguous().view(self.tokens, self.heads, *tensor.shape[3:])

    def arranged(self, tensor: torch.Tensor, of_keys: bool = False) -> torch.Tensor:
        """What lies as [tokens, heads, ...] as the caller's queries are, or its keys."""
        if self.packed:
            return tensor
        rows = self.keys if of_keys else self.length
        return tensor.view(self.batch, rows, *tensor.shape[1:]).transpose(1, 2)


def whole_scale(query: torch.Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale


def in_powers_of_two(scale: float, cap: float) -> tuple[float, float]:
    """A scale and a cap (0 for none) of natural scores, as ``scores_of`` takes them."""
    return (scale / cap, cap * _LOG2E) if cap else (scale * _LOG2E, 0.0)


def of_four(bias: Optional) -> Optional:
    """A bias or a mask with four dimensions, as kernels take it: [batch, heads, rows, keys], each may be 1."""
    return None if bias is None else bias.reshape((1,) * (4 - bias.dim()) + tuple(bias.shape))


def straight(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` with the elements of a row side by side."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def straight_list(tensor: Optional) -> Optional:
    """``tensor`` with its elements side by side, as kernels read lists."""
    return tensor.contiguous() if tensor is not None else None


def call_of(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: Optional, sinks: Optional, slopes: Optional,
    query_starts: Optional, key_starts: Optional, length: int, keys: int, options: Options,
) -> Call:  # fmt: skip
    """A call, its tensors with rows whose elements lie side by side; of packed sequences, length and keys are given."""
    if query_starts is None:
        length, keys = query.shape[2], key.shape[2]
    lists = sinks, slopes, query_starts, key_starts
    sinks, slopes, query_starts, key_starts = (straight_list(each) for each in lists)
    return Call(
        straight(query), straight(key), straight(value), bias, sinks, slopes, query_starts, key_starts, length, keys,
        options,
    )  # fmt: skip
