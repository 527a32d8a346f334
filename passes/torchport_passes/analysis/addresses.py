"""Takes tensors of pointers apart: a base, offsets, and the stride from lane to lane."""

from __future__ import annotations

from dataclasses import dataclass, field

from torchport_passes.analysis.masks import Masks
from torchport_passes.analysis.strides import StrideAnalysis
from torchport_passes.ir.ops import Coords, int_attribute, owner_of, shape_of
from torchport_passes.ir.types import Value

__all__ = ["Address", "address_of", "byte_stride"]


@dataclass
class Address:
    """A tensor of pointers, taken apart.

    ``base``: a pointer, or a tensor of pointers.
    ``base_coords``: the coordinates that the base is evaluated at.
    ``offsets``: what ``tt.addptr`` adds to it: value, coordinates, and bytes of an element.
    """

    base: Value
    base_coords: Coords
    offsets: list[tuple[Value, Coords, int]] = field(default_factory=list)


def address_of(masks: Masks, value: Value, coords: Coords) -> Address:
    """Take ``value``, a tensor of pointers at ``coords``, apart; ``masks``: what is known there."""
    value, coords = masks.resolve(value, coords)
    op = owner_of(value)
    if op is not None and op.name == "tt.addptr" and shape_of(value) is not None:
        address = address_of(masks, op.operands[0], coords)
        address.offsets.append((op.operands[1], coords, int_attribute(op, "elem_bytes")))
        return address
    return Address(value, coords)


def byte_stride(strides: StrideAnalysis, address: Address) -> int | None:
    """The distance in bytes between neighbouring lanes, None if it is not constant."""
    if shape_of(address.base) is not None and not strides.uniform(address.base, address.base_coords):
        return None
    total = 0
    for value, coords, bytes_ in address.offsets:
        stride = strides.of(value, coords).stride
        if stride is None:
            return None
        total += stride * bytes_
    return total
