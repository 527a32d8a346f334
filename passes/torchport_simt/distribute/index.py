"""The element distribution: which lane holds which element of a block, with indices represented as lists of bits.

Triton's block sizes are powers of two, so every re-indexing of a block (broadcast, reshape, transpose, join ...) moves
whole bits of the row-major index. Each bit is a constant or one bit of a value that differs between lanes. The bits
show whether an index names an element that the lane holds itself, and in which register.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from mlir.dialects import arith
from torchport_passes.ir.build import integer_type

__all__ = ["Bit", "Bits", "ElementDistribution", "dimensions", "log2", "number", "value_bits"]

Bit = int | tuple[Any, int]
"""0, 1, or bit ``j`` of the i32 ``value``: (value, j)."""

Bits = tuple[Bit, ...]
"""An index, its lowest bit first."""


def log2(number: int) -> int:
    """The exponent of a power of two."""
    return number.bit_length() - 1


def number(value: int, count: int) -> Bits:
    """A constant index of ``count`` bits."""
    return tuple((value >> i) & 1 for i in range(count))


def value_bits(value: Any, count: int) -> Bits:
    """The low ``count`` bits of an i32."""
    return tuple((value, i) for i in range(count))


def dimensions(bits: Bits, shape: tuple[int, ...]) -> list[Bits]:
    """Split a row-major index into its dimensions, the first one first."""
    parts, start = [], 0
    for size in reversed(shape):
        parts.append(bits[start : start + log2(size)])
        start += log2(size)
    return parts[::-1]


@dataclass
class ElementDistribution:
    """How the elements of a block are distributed over the lanes of a work-group.

    Neighbours belong to one lane, ``unit`` of them, the next ``unit`` to the next lane, and so on in turns; with a unit
    of 1, element ``e`` belongs to lane ``e % count``. A block with fewer elements than ``count * unit`` has a smaller
    unit; one with fewer elements than lanes is held several times. A lane's registers are in the order of the index.
    Methods that return values emit IR at the insertion point.

    lane: the lane's number, an i32.
    count: lanes of a work-group.
    unit: neighbours that a lane accesses at once.
    """

    lane: Any
    count: int
    unit: int = 1

    @property
    def width(self) -> int:
        """Bits of a lane's number."""
        return log2(self.count)

    def inner(self, total: int) -> int:
        """The bits below the lane's number in the index of a block of 2^``total`` elements."""
        return max(0, min(log2(self.unit), total - self.width))

    def registers(self, shape: tuple[int, ...]) -> int:
        """The number of elements of a block that each lane holds."""
        return max(1, prod(shape) // self.count)

    def own(self, shape: tuple[int, ...], register: int) -> Bits:
        """The index of the element that a lane holds in a register."""
        total = log2(prod(shape))
        lane = value_bits(self.lane, min(total, self.width))
        below = self.inner(total)
        kept = number(register, total - len(lane))
        return kept[:below] + lane + kept[below:]

    def register_of(self, bits: Bits) -> int | None:
        """The register in which each lane itself holds the element at this index; None if another lane holds it."""
        below = self.inner(len(bits))
        lane, kept = bits[below : below + self.width], bits[:below] + bits[below + self.width :]
        if lane != value_bits(self.lane, len(lane)) or any(isinstance(bit, tuple) for bit in kept):
            return None
        return sum(int(bit) << i for i, bit in enumerate(kept) if not isinstance(bit, tuple))

    def is_first(self, shape: tuple[int, ...]) -> Any | None:
        """Whether a lane is the first to hold its element, as an i1; None if no element is held twice."""
        total = prod(shape)
        if total >= self.count:
            return None
        limit = arith.ConstantOp(integer_type(32), total).result
        return arith.CmpIOp(arith.CmpIPredicate.ult, self.lane, limit).result

    def value(self, bits: Bits) -> Any:
        """Emit an index as an i32: its parts from the highest down, so that each lies below all before it."""
        i32 = integer_type(32)
        total = None
        for source, start, place, count in reversed(_runs(bits)):
            if isinstance(source, int):
                part = arith.ConstantOp(i32, source << place).result
            else:
                part = source
                whole = source == self.lane and start + count == self.width
                if start:
                    part = arith.ShRUIOp(part, arith.ConstantOp(i32, start).result).result
                if not whole:
                    part = arith.AndIOp(part, arith.ConstantOp(i32, (1 << count) - 1).result).result
                if place:
                    part = arith.ShLIOp(part, arith.ConstantOp(i32, place).result).result
            total = part if total is None else arith.OrIOp(total, part).result
        return arith.ConstantOp(i32, 0).result if total is None else total

    def all_clear(self, bits: Bits) -> Any | None:
        """Whether all of ``bits`` are 0, as an i1; None if they are the constant 0."""
        varying = tuple(bit for bit in bits if bit != 0)
        if not varying:
            return None
        zero = arith.ConstantOp(integer_type(32), 0).result
        return arith.CmpIOp(arith.CmpIPredicate.eq, self.value(varying), zero).result


def _runs(bits: Bits) -> list[tuple[Any, int, int, int]]:
    """Runs of adjacent bits, the lowest first: (value, first bit in it, first bit in the index, length).

    Those of a constant are (number, 0, first bit in the index, length); zeros are left out.
    """
    runs: list[tuple[Any, int, int, int]] = []
    adjacent = False
    for place, bit in enumerate(bits):
        if not isinstance(bit, tuple):
            if runs and isinstance(runs[-1][0], int) and adjacent:
                number_, _, first, count = runs[-1]
                runs[-1] = (number_ | bit << (place - first), 0, first, count + 1)
            elif bit:
                runs.append((1, 0, place, 1))
            adjacent = bool(runs) and isinstance(runs[-1][0], int)
            continue
        adjacent = False
        if runs:
            source, start, first, count = runs[-1]
            if source == bit[0] and start + count == bit[1] and first + count == place:
                runs[-1] = (source, start, first, count + 1)
                continue
        runs.append((bit[0], bit[1], place, 1))
    return runs
