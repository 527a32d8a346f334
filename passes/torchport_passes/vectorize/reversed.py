"""Accesses whose neighbours follow each other backwards: one load or store and a shuffle, in place of a gather."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import llvm, vector

from torchport_passes.ir.build import byte_width, further, masked_load, masked_store, plain_load
from torchport_passes.ir.types import Type, Value

__all__ = ["load_reversed", "store_reversed"]


def load_reversed(type_: Type, pointer: Value, active: Value | None, other: Value) -> Value:
    """The vector of ``type_`` whose lane 0 is at ``pointer``, lane 1 one element before it, and so on.

    Nothing but active lanes is read; ``active``: None if all are. Others are those of ``other``.
    """
    first = _lowest(type_, pointer)
    if active is None:
        return _turned(plain_load(type_, first, byte_width(type_.element_type)))
    return _turned(masked_load(type_, first, _turned(active), _turned(other)))


def store_reversed(value: Value, pointer: Value, active: Value | None) -> None:
    """Stores lane 0 at ``pointer``, lane 1 one element before it, and so on; ``active``: None if all lanes are."""
    first = _lowest(value.type, pointer)
    if active is None:
        llvm.StoreOp(_turned(value), first, alignment=byte_width(value.type.element_type))
    else:
        masked_store(_turned(value), first, _turned(active))


def _lowest(type_: Type, pointer: Value) -> Value:
    """The address of the last lane."""
    lanes = int(ir.VectorType(type_).shape[0])
    return further(pointer, -(lanes - 1) * byte_width(type_.element_type))


def _turned(value: Value) -> Value:
    """The lanes of a vector from the last to the first."""
    lanes = int(ir.VectorType(value.type).shape[0])
    return vector.ShuffleOp(value, value, list(range(lanes - 1, -1, -1))).result
