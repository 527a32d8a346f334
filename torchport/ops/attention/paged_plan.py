"""How ``paged_attention`` computes a call: kernels, grids and numbers, by shapes, strides and types alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.compat import forward_ad
from torchport.ops.attention.call import Optional, in_powers_of_two, straight, straight_list
from torchport.ops.attention.configurations import on_cpu
from torchport.ops.attention.paged_heads import split_heads
from torchport.ops.attention.paged_kernels import combine, split
from torchport.ops.launch import Prepared, compiling_elsewhere
from torchport.ops.layout import block_for
from torchport.ops.registry import unobserved

__all__ = ["Plan", "alike", "plan_of"]

_CHUNK = 512
"""Keys of one split: a number of its own, so that sums do not depend on what else is in the batch."""

_PROGRAMS = 8
_MOST_SHARING = 4
"""Queries that share a key up to which a CPU adds products up along a row; a product of blocks turns keys around."""

_AT_ONCE = 4096
"""Numbers of queries that an instance takes at once on a CPU: their sums stay in its nearest cache."""

_KEYS = 4
"""Keys that such an instance takes at once: with more, exponentials wait less for scores, and memory is read worse."""

_OPTIONS = frozenset({int, float, bool, type(None)})


@dataclass(frozen=True)
class Plan:
    """A call, ready to run on tensors of the same shapes, strides and types.

    out, logarithms: shapes of the results; no logarithms if None.
    scratch: float32 numbers between the two kernels.
    copied: whether some tensor must be copied first, as the elements of a row do not lie side by side.
    """

    out: tuple[int, ...]
    logarithms: tuple[int, ...] | None
    scratch: int
    copied: bool
    split: Prepared
    combine: Prepared

    def run(
        self, query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, tables: torch.Tensor,
        contexts: torch.Tensor, sinks: Optional, slopes: Optional,
    ) -> tuple[torch.Tensor, Optional]:  # fmt: skip
        """The result, and the logarithms of the rows' sums."""
        if self.copied:
            query, key_cache, value_cache = map(straight, (query, key_cache, value_cache))
            tables, contexts = tables.contiguous(), contexts.contiguous()
            sinks, slopes = straight_list(sinks), straight_list(slopes)
        out = query.new_empty(self.out)
        scratch = query.new_empty(self.scratch, dtype=torch.float32)
        logarithms = None if self.logarithms is None else query.new_empty(self.logarithms, dtype=torch.float32)
        self.split(query, key_cache, value_cache, tables, contexts, slopes, scratch)
        self.combine(scratch, sinks, out, logarithms)
        return out, logarithms


def alike(tensors: Sequence[Optional], options: Sequence[Any]) -> tuple[Any, ...] | None:
    """What calls with one plan have in common; None for a call that has to be looked at.

    That is one on another device than the CPU, one that something observes (``unobserved``), or a wrong one.
    """
    types = tuple(map(type, options))  # True is no 1, and a list no key
    if not _OPTIONS.issuperset(types) or not unobserved(tensors):
        return None
    if compiling_elsewhere() or forward_ad._current_level >= 0:
        return None
    key = [*options, types]
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor) and tensor.is_cpu:
            key += (tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset() % 2)
        elif tensor is None:
            key.append(None)
        else:
            return None
    return tuple(key)


def plan_of(
    query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, tables: torch.Tensor,
    contexts: torch.Tensor, sinks: Optional, slopes: Optional, scale: float, cap: float, left: int, key_scale: float,
    value_scale: float, invariant: bool, *, single: bool, with_logarithms: bool,
) -> Plan:  # fmt: skip
    """The plan of a call with these tensors, whose values do not matter. query: [sequences, queries, heads, size].

    single: results have no dimension of queries.
    """
    given = query, key_cache, value_cache, tables, contexts, sinks, slopes
    query, key_cache, value_cache = map(straight, given[:3])
    copied = any(new is not old for new, old in zip((query, key_cache, value_cache), given[:3], strict=True))
    copied = copied or not all(each is None or each.is_contiguous() for each in given[3:])
    sequences, queries, heads, size = query.shape
    pages, places, owners, width = value_cache.shape
    group, rows, block = heads // owners, sequences * queries * heads, block_for(width)
    most = max(tables.shape[1] * places, 1)
    chunk = _CHUNK if invariant else max(_CHUNK, -(-most // max(1, _PROGRAMS // max(1, sequences * owners))))
    chunk = -(-chunk // 64) * 64
    splits = -(-most // chunk)
    sums_at = rows * splits * block
    places_of = *key_cache.stride()[:3], *value_cache.stride()[:3], tables.shape[1]
    numbers = sums_at, pages, splits, chunk, max(left, 0), *in_powers_of_two(scale * key_scale, cap)
    constants = {
        "PLACES": places, "SIZE": size, "VSIZE": width, "CAPPED": cap != 0, "LEFT": left >= 0,
        "BLOCK_D": block_for(size), "BLOCK_V": block,
    }  # fmt: skip
    paired = False
    if queries == 1 and group <= _MOST_SHARING and on_cpu(query.device):
        paired = _in_pairs(value_cache)
        together, sharing = _heads_at_once(owners, group, max(size, width)), 1 << (group - 1).bit_length()
        full = owners % together == 0 and sharing == group and (size, width) == (block_for(size), block)
        constants |= {
            "HEADS": together, "GROUP": sharing, "FULL": full, "PAIRED": _in_pairs(key_cache) and _in_pairs(query),
            "VPAIRED": paired, "KEYS": _KEYS,
        }  # fmt: skip
        args: Any = query.stride(0), query.stride(2), *places_of, owners, group, *numbers
        first = Prepared(split_heads, (splits, sequences, -(-owners // together)), args, constants)
    else:
        at_once = _rows(queries * group, query.device)
        args = *query.stride()[:3], *places_of, heads, group, queries, *numbers
        grid = owners, splits, sequences * -(-queries * group // at_once)
        first = Prepared(split, grid, args, constants | {"BLOCK_M": at_once, "BLOCK_N": _columns(places)})
    constants = {"VSIZE": width, "BLOCK_V": block, "BLOCK_S": 16, "PAIRED": paired}
    second = Prepared(combine, (rows, 1, 1), (heads, sums_at, splits, value_scale), constants)
    shape = (sequences, heads) if single else (sequences, queries, heads)
    logarithms = shape if with_logarithms else None
    return Plan((*shape, width), logarithms, sums_at + rows * splits, copied, first, second)


def _heads_at_once(owners: int, group: int, size: int) -> int:
    """Heads of keys that a program instance of a CPU takes: a power of two."""
    heads = 1 << (owners - 1).bit_length()
    while heads > 1 and heads * group * size > _AT_ONCE:
        heads //= 2
    return heads


def _in_pairs(rows: torch.Tensor) -> bool:
    """Whether elements can be read as words of two: bfloat16, which a shift or a mask widens."""
    even = not any(number % 2 for number in (*rows.stride()[:-1], rows.shape[-1]))
    return rows.dtype is torch.bfloat16 and even and rows.storage_offset() % 2 == 0


def _rows(count: int, device: torch.device) -> int:
    """Rows of a block: on a CPU no more than there are, elsewhere at least what matrix units take."""
    least = 1 if on_cpu(device) else 16
    while least < min(count, 64):
        least *= 2
    return least


def _columns(places: int) -> int:
    """Keys of a block: within one page, if its size allows that."""
    return min(64, places) if places >= 16 and places & (places - 1) == 0 else 64
