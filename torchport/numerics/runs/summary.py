"""Statistics of a tensor: at most 4 KB, from one pass in native code.

A summary is a dictionary with

count: number of elements; a complex number counts as two
finite, nan, posinf, neginf, zero, denormal: how many elements are such
canary: how many elements hold the bits of CANARY, so were never written; ``nan`` counts them too
min, max, mean, mean_square: of the finite elements; None if there are none
hash: of all bits in the order of memory, 64 bits in hexadecimal; equal for equal bits with equal strides

and, at the first launch of a site,

exponents: [binary exponent, negative elements, positive elements], exponents limited to -40 ... 23
step: every how many elements were counted in ``exponents``
top: [index in the order of dimensions, value] of the 8 finite elements of largest magnitude
sample: bytes of the elements at ``sample_positions``, in base64

Later launches omit counts that are 0.
"""

from __future__ import annotations

import base64
from typing import Any

import torch

from torchport.runtime.launcher import summarize_native

__all__ = ["CANARY", "ELEMENTS", "SAMPLE", "plan", "sample_of", "sample_positions", "summarize"]

ELEMENTS: dict[torch.dtype, int] = {
    torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3, torch.float8_e4m3fn: 4,
    torch.float8_e5m2: 5, torch.float8_e4m3fnuz: 6, torch.float8_e5m2fnuz: 7, torch.uint8: 8, torch.bool: 8,
    torch.int8: 9, torch.int16: 10, torch.uint16: 11, torch.int32: 12, torch.uint32: 13, torch.int64: 14,
    torch.uint64: 15,
}  # fmt: skip
"""Numbers of the element types in the native code."""

CANARY: dict[torch.dtype, tuple[torch.dtype, int]] = {
    torch.float32: (torch.int32, 0x7FDEADDE),
    torch.float64: (torch.int64, 0x7FFDEADDEADDEADD),
    torch.float16: (torch.int16, 0x7FDE),
    torch.bfloat16: (torch.int16, 0x7FDE),
}
"""Bits of a quiet NaN that arithmetic does not produce. Outputs are filled with it before they are written."""

SAMPLE = 256
"""Number of elements in a summary's sample."""

_MASK = (1 << 64) - 1


def plan(tensor: torch.Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
    """Element type, sizes and strides of a tensor as the native code takes them; None for unsupported types."""
    sizes, strides, dtype = tuple(tensor.shape), tensor.stride(), tensor.dtype
    if dtype.is_complex:
        sizes, strides = (*sizes, 2), (*(2 * stride for stride in strides), 1)
        dtype = dtype.to_real()
    return (ELEMENTS[dtype], sizes, strides) if dtype in ELEMENTS else None


def summarize(tensor: torch.Tensor, detailed: bool = True) -> tuple[str, int]:
    """The summary of a tensor in CPU memory as JSON, and how many of its elements are not finite.

    Raises KeyError for element types without a summary.
    """
    described = plan(tensor)
    if described is None:
        raise KeyError(tensor.dtype)
    return summarize_native(tensor.data_ptr(), *described, detailed)


def sample_positions(count: int) -> list[int]:
    """Which elements of a tensor with ``count`` elements are in its sample, in the order of dimensions.

    All of a small tensor; else positions from splitmix64 (Steele, Lea, Flood, OOPSLA 2014), the same for each size.
    """
    return list(range(count)) if count <= SAMPLE else [_splitmix(index) % count for index in range(SAMPLE)]


def sample_of(summary: dict[str, Any], dtype: str) -> torch.Tensor:
    """The elements in a summary's sample, in one dimension. ``dtype``: torch's name; complex numbers are pairs."""
    kind = getattr(torch, dtype)
    data = bytearray(base64.b64decode(summary["sample"]))
    kind = kind.to_real() if kind.is_complex else kind
    return torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)


def _splitmix(index: int) -> int:
    value = (index + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
