"""What a target can do, as data: read by whatever adapts to a target, so that nothing asks for a vendor's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["VERSION", "Capabilities"]

VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """One target's limits and formats. Types are named as Triton names them (``fp32``, ``int64`` ...).

    Sizes. ``simd_width``: lanes that run in lockstep (a warp, a wavefront, the f32 lanes of a vector register).
    ``simd_groups``: how many such groups one program instance may be spread over, ascending. ``lane_elements``: how
    many elements of a block each lane should have before another group is taken. ``block_elements``: elements of a
    block that a program instance can hold without spilling much, all groups together. ``grid``: most program instances
    in x, y and z. ``scratchpad_bytes``: memory that the lanes of a program instance share, 0 where there is none to
    manage.

    Formats. ``dtypes``: the types that are loaded, stored and computed with. ``promoted``: types among them whose
    arithmetic is done in a wider type and rounded after each operation. ``atomics``: the types of atomic operations.
    ``dot_shapes``: the least M, N and K of ``tl.dot``. ``dot_precisions``: what ``tl.dot`` may ask for with f32
    operands.

    Arithmetic. ``fma``: whether fp32 has a fused multiply-add in hardware. ``denormals``: the types whose denormal
    numbers survive arithmetic. ``rounding``: of fp32 add, multiply and convert, ``rne`` or ``rtz``. ``ulp``: the
    largest error of an fp32 function (``exp``, ``div`` ...) that the vendor promises, in units in the last place;
    functions that are not listed promise nothing.
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
    promoted: Mapping[str, str] = field(default_factory=dict)
    atomics: frozenset[str] = frozenset()
    dot_shapes: tuple[int, int, int] = (1, 1, 1)
    fma: bool = True
    rounding: str = "rne"
    ulp: Mapping[str, float] = field(default_factory=dict)
    version: int = VERSION

    def groups_for(self, elements: int) -> int:
        """SIMD groups for a block of ``elements``, one of ``simd_groups``."""
        wanted = max(1, elements // (self.simd_width * self.lane_elements))
        fitting = [groups for groups in self.simd_groups if groups <= wanted]
        return fitting[-1] if fitting else self.simd_groups[0]

    def as_json(self) -> dict[str, Any]:
        """The descriptor as JSON values; sets are sorted lists."""
        return {one.name: _value(getattr(self, one.name)) for one in fields(self)}


def _value(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
