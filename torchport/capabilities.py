"""What a target can do, as data. Code adapts to these values and never tests a vendor's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["VERSION", "Capabilities"]

VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """One target's limits and formats. Types are named as Triton names them (``fp32``, ``int64`` ...).

    Sizes:

    simd_width: lanes that run in lockstep (a warp, a wavefront, the f32 lanes of a vector register).
    simd_groups: how many such groups may share one program instance, ascending.
    lane_elements: elements of a block that each lane should have before another SIMD group is added.
    vector_lanes: whether the lanes of a SIMD group are the elements of one thread's vectors, as on CPUs.
    simd_registers: vectors of ``simd_width`` f32 that a thread's registers hold; 0 if it is not known.
    block_elements: elements of a block that a program instance can hold in registers without spilling much.
    grid: the largest grid in x, y and z.
    scratchpad_bytes: local (shared) memory of a program instance; 0 if it is not limited.

    Formats:

    dtypes: types that can be loaded, stored and computed with.
    promoted: types whose arithmetic is done in a wider type and rounded after each operation.
    atomics: types of atomic operations.
    dot_shapes: the smallest M, N and K of ``tl.dot``.
    dot_precisions: input precisions that ``tl.dot`` of f32 operands may ask for.
    fast_products: types whose matrix products ``tl.dot`` computes faster than the library that aten calls, as measured
        (tools/bench_products.py).
    few_products: 16-bit types for which it does so with 5 to 16 rows.
    ragged_products: types for which it does so where a quarter of the blocks of columns is empty, or terms are left
        that fill no step.
    distant_streams: whether a thread reads rows of memory that lie far apart faster than neighbours, as measured.
    bf16_pairs: whether ``tl.dot`` of bf16 can use an instruction that adds up products in pairs and takes denormals for
        zeros. It does so where the kernel's option ``bf16_pairs`` allows it, and is exact in fp32 elsewhere.
    fast_pairs: whether it is as fast as the library then, as measured.

    Arithmetic:

    fma: whether fp32 has a fused multiply-add in hardware.
    denormals: types whose denormal numbers survive arithmetic.
    rounding: rounding of fp32 add, multiply and convert, ``rne`` or ``rtz``.
    ulp: the largest error, in units in the last place, that the vendor guarantees for fp32 functions (``exp``, ``div``
        ...); nothing is guaranteed for functions not listed.
    version: version of this description.
    """

    simd_width: int
    simd_groups: tuple[int, ...]
    block_elements: int
    grid: tuple[int, int, int]
    scratchpad_bytes: int
    dtypes: frozenset[str]
    dot_precisions: frozenset[str]
    denormals: frozenset[str]
    lane_elements: int = 8
    vector_lanes: bool = False
    simd_registers: int = 0
    promoted: Mapping[str, str] = field(default_factory=dict)
    atomics: frozenset[str] = frozenset()
    dot_shapes: tuple[int, int, int] = (1, 1, 1)
    fast_products: frozenset[str] = frozenset()
    few_products: frozenset[str] = frozenset()
    ragged_products: frozenset[str] = frozenset()
    distant_streams: bool = False
    fast_pairs: bool = False
    bf16_pairs: bool = False
    fma: bool = True
    rounding: str = "rne"
    ulp: Mapping[str, float] = field(default_factory=dict)
    version: int = VERSION

    def groups_for(self, elements: int) -> int:
        """The number of SIMD groups for a block of ``elements``, one of ``simd_groups``."""
        wanted = max(1, elements // (self.simd_width * self.lane_elements))
        fitting = [groups for groups in self.simd_groups if groups <= wanted]
        return fitting[-1] if fitting else self.simd_groups[0]

    def as_json(self) -> dict[str, Any]:
        """The capabilities as JSON values; sets become sorted lists."""
        return {field_.name: _value(getattr(self, field_.name)) for field_ in fields(self)}


def _value(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
