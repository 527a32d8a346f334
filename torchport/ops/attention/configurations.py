"""Sizes of blocks for each kernel and chip.

On a CPU they are the fastest that were measured (docs/attention.md). On GPUs they are the largest whose code keeps all
values in registers: ``python tools/attention_gpus.py`` compiles them, for chips that need not be here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from torchport.ops.launch import target_of
from torchport.ops.layout import block_for
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["Blocks", "blocks_for", "blocks_of_lanes", "lanes_of", "on_cpu", "padding"]


@dataclass(frozen=True)
class Blocks:
    """Rows and keys of a block; on GPUs also warps of a program instance, and stages of the pipeline of loads."""

    rows: int
    keys: int
    warps: int = 0
    stages: int = 1

    def constants(self) -> dict[str, int]:
        return {"BLOCK_M": self.rows, "BLOCK_N": self.keys}

    def tuning(self) -> dict[str, int]:
        """Triton's options."""
        return {"num_warps": self.warps, "num_stages": self.stages} if self.warps else {}


_OF_CPU = (128, 64)
_FEW = 16
"""On CPUs: rows or keys of a block, and rows from which on ``forward`` takes these by what they leave empty."""

_WITHOUT_LANES = frozenset({"cpu", "cuda", "hip"})
_SMALL = Blocks(32, 32)
"""What targets have room for whose chips are not in the tables; less where their local memory is small."""
_VECTORS = 512
"""Elements of a block of rows or keys of piecewise attention, where lanes are elements of vectors.

With more, its code is too long for vectors, and drivers take a minute for that of work-items.
"""
_FEWEST = 8

_Rows = Mapping[str, tuple[Blocks | None, ...]]

_B = Blocks
_HALF: Mapping[str, _Rows] = {
    "sm80": {
        "forward": (_B(128, 128, 8), _B(64, 64, 8, 2), _B(64, 64, 8, 2)),
        "columns": (_B(32, 64, 8), _B(64, 64, 8), _B(64, 32, 8)),
        "rows": (_B(128, 64, 8), _B(64, 64, 8), _B(64, 64, 8)),
        "piecewise_forward": (_B(128, 64, 8), _B(64, 64, 8), _B(64, 64, 8)),
        "piecewise_columns": (_B(32, 32, 8), _B(32, 32, 8), None),
        "piecewise_rows": (_B(64, 32, 8), _B(64, 64, 8), _B(32, 32, 8)),
    },
    "sm90": {
        "forward": (_B(128, 128, 8), _B(128, 128, 8), _B(64, 64, 8, 2)),
        "columns": (_B(64, 128, 8), _B(32, 64, 8), _B(64, 32, 8)),
        "rows": (_B(128, 64, 8), _B(128, 64, 8), _B(32, 32, 4)),
        "piecewise_forward": (_B(128, 64, 8), _B(128, 64, 8), _B(32, 32, 4)),
        "piecewise_columns": (_B(32, 32, 8), _B(32, 32, 8), None),
        "piecewise_rows": (_B(64, 64, 8), _B(64, 64, 8), _B(32, 32, 8)),
    },
    "gfx942": {
        "forward": (_B(128, 128, 8), _B(128, 64, 8, 2), _B(64, 32, 4, 2)),
        "columns": (_B(32, 64, 8), _B(32, 32, 4), _B(32, 32, 4)),
        "rows": (_B(128, 64, 8), _B(64, 64, 4), _B(64, 64, 4)),
        "piecewise_forward": (_B(128, 64, 8), _B(64, 32, 8), _B(32, 32, 4)),
        "piecewise_columns": (_B(32, 32, 4), _B(32, 32, 4), _B(16, 32, 4)),
        "piecewise_rows": (_B(64, 32, 8), _B(32, 32, 4), _B(16, 32, 4)),
    },
}  # fmt: skip
_SINGLE: Mapping[str, _Rows] = {
    "sm80": {
        "forward": (_B(64, 32, 8), _B(32, 32, 8)),
        "columns": (_B(32, 32, 8), _B(32, 64, 8)),
        "rows": (_B(32, 32, 8), _B(16, 16, 8)),
        "piecewise_forward": (_B(32, 32, 8), _B(16, 16, 8)),
        "piecewise_columns": (_B(16, 32, 8), _B(16, 16, 8)),
        "piecewise_rows": (_B(16, 32, 8), _B(32, 32, 8)),
    },
    "sm90": {
        "forward": (_B(64, 32, 8), _B(32, 32, 8)),
        "columns": (_B(32, 64, 8), _B(32, 32, 8)),
        "rows": (_B(32, 32, 8), _B(16, 16, 8)),
        "piecewise_forward": (_B(32, 32, 8), _B(16, 16, 8)),
        "piecewise_columns": (_B(16, 16, 8), _B(16, 16, 8)),
        "piecewise_rows": (_B(16, 32, 8), _B(32, 32, 8)),
    },
    "gfx942": {
        "forward": (_B(64, 64, 8), _B(64, 32, 8)),
        "columns": (_B(16, 32, 8), _B(16, 32, 8)),
        "rows": (_B(32, 32, 8), _B(32, 32, 8)),
        "piecewise_forward": (_B(32, 32, 8), _B(16, 32, 8)),
        "piecewise_columns": (_B(16, 16, 8), _B(16, 16, 4)),
        "piecewise_rows": (_B(32, 32, 8), _B(16, 16, 8)),
    },
}  # fmt: skip
"""Of 16-bit numbers for heads of up to 64, 128 and 256, and of float32 for up to 64 and 128; others have ``_SMALL``."""


def on_cpu(device: torch.device) -> bool:
    """Whether kernels on tensors of ``device`` are a CPU's, whose program instances may read what they stored."""
    return target_of(device).startswith("cpu")


def blocks_for(kernel: str, device: torch.device, length: int, size: int, bytes_each: int, keys: int = 0) -> Blocks:
    """Blocks of a kernel: ``forward``, ``columns``, ``rows``, these with ``piecewise_`` before them, ``totals``.

    length: of the longest sequence of queries. size: of a head, the larger of keys' and values'. bytes_each: of their
    elements. keys: of the longest sequence of keys, 0 where it does not matter.
    """
    target = target_of(device)
    if target.startswith("cpu"):
        if kernel == "forward" and length > _FEW:
            return Blocks(_filled(length), _filled(keys))
        most = 64 if kernel.endswith("columns") else 128
        return Blocks(next((rows for rows in (1, 16, 64) if length <= rows), most), 128)
    known = (_HALF if bytes_each <= 2 else _SINGLE).get(_kind(target), {}).get(kernel, ())
    place = 0 if size <= 64 else 1 if size <= 128 else 2 if size <= 256 else len(known)
    found = known[place] if place < len(known) else None
    memory = 0 if device.type == "meta" else _local_memory(target)
    if found is None and kernel.startswith("piecewise") and lanes_of(device):
        rows = _VECTORS // max(16, block_for(size))
        return Blocks(max(_FEWEST, min(16, rows)), max(_FEWEST, min(16, rows)))
    return found or _fitting(Blocks(16, 32) if length <= 16 else _SMALL, size, memory)


def _fitting(blocks: Blocks, size: int, memory: int) -> Blocks:
    """``blocks``, smaller where ``memory``, if it is limited, does not hold what lanes exchange of them.

    That is, at most, two matrices of ``size`` columns for the rows, two for the keys, and two of rows by keys.
    """
    rows, keys, columns = blocks.rows, blocks.keys, block_for(size)
    while memory and 8 * ((rows + keys) * columns + rows * keys) > memory and max(rows, keys) > _FEWEST:
        rows, keys = (rows // 2, keys) if rows > keys else (rows, keys // 2)
    return Blocks(rows, keys, blocks.warps, blocks.stages)


def lanes_of(device: torch.device) -> int:
    """Elements of a vector, where a program instance of kernels on ``device`` is one thread with vectors; else 0."""
    if device.type == "meta":
        return 0
    target = target_of(device)
    return 0 if target.partition(":")[0] in _WITHOUT_LANES else _lanes(target)


def padding(length: int, keys: int) -> float:
    """Scores that ``forward`` computes on a CPU, in times of those that there are."""
    rows, columns = (-(-count // _filled(count)) * _filled(count) for count in (length, keys))
    return rows * columns / (length * keys)


def _filled(count: int) -> int:
    """The larger one of the blocks that fill ``count`` up the least."""
    return min(_OF_CPU, key=lambda block: -(-count // block) * block)


def blocks_of_lanes(lanes: int, size: int) -> Blocks | None:
    """Blocks of ``forward_lanes`` for heads of ``size``; None if its code would be too long.

    A row for each element of a vector; as many keys as 128 vectors hold, as keys of 16-bit numbers and ones behind a
    mask are copied.
    """
    return Blocks(lanes, min(32, 128 * lanes // block_for(size))) if size <= 128 else None


@functools.cache
def _local_memory(target: str) -> int:
    """Bytes of local memory of a program instance; 0 if they are not limited, or Triton's compiler sees to it."""
    parsed = Target.parse(target)
    return 0 if parsed.backend in _WITHOUT_LANES else backend_for(parsed).capabilities(parsed).scratchpad_bytes


@functools.cache
def _lanes(target: str) -> int:
    parsed = Target.parse(target)
    able = backend_for(parsed).capabilities(parsed)
    return able.simd_width if able.vector_lanes else 0


def _kind(target: str) -> str:
    """The rows that a target reads: those of the newest chip that is not newer."""
    name, _, chip = target.partition(":")
    if name == "cuda" and chip.isdigit():
        return "sm90" if int(chip) >= 90 else "sm80"
    return "gfx942" if name == "hip" else ""
