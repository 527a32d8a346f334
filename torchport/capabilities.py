"""What a target can do, as data: read by whatever adapts to a target, so that nothing asks for a vendor's name."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["VERSION", "Capabilities"]

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """One target's limits and formats.

    ``simd_width``: lanes that run in lockstep (a warp, a wavefront, the f32 lanes of a vector register).
    ``simd_groups``: how many such groups one program instance may be spread over, ascending. ``block_elements``:
    elements of a block that a program instance can hold without spilling much, all groups together. ``grid``: most
    program instances in x, y and z. ``scratchpad_bytes``: memory that the lanes of a program instance share, 0 where
    there is none to manage. ``dtypes``: Triton's names of the types that are computed with. ``dot_precisions``:
    what ``tl.dot`` may ask for with f32 operands. ``denormals``: the types whose denormal numbers survive arithmetic.
    """

    simd_width: int
    simd_groups: tuple[int, ...]
    block_elements: int
    grid: tuple[int, int, int]
    scratchpad_bytes: int
    dtypes: frozenset[str]
    dot_precisions: frozenset[str]
    denormals: frozenset[str]
    version: int = VERSION

    def groups_for(self, elements: int, per_lane: int) -> int:
        """SIMD groups for a block of ``elements`` with about ``per_lane`` in each lane, one of ``simd_groups``."""
        wanted = max(1, elements // (self.simd_width * per_lane))
        fitting = [groups for groups in self.simd_groups if groups <= wanted]
        return fitting[-1] if fitting else self.simd_groups[0]
