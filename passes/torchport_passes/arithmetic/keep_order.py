"""Turns operations on payloads into hashes of what they are and of their operands, so that their order counts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport.arithmetic.payload import field
from torchport.errors import UnsupportedOperation
from torchport_passes.arithmetic.payload_ops import filled, function
from torchport_passes.ir.atomics import PAYLOAD, kind_of
from torchport_passes.ir.ops import matching, text_attribute
from torchport_passes.ir.types import Module, Op, Value

__all__ = ["KeepOrder"]

_SYMBOL = re.compile(rf"tp_{PAYLOAD}(\w+)_i64$")
_COMMUTE = frozenset({"add", "mul"})
_EXACT = frozenset(
    "abs ceil floor from_signed from_unsigned hash1 hash2 hash3 maximum maxnum minimum minnum neg odd order rint round "
    "sign to_signed trunc unordered".split()
)
"""Functions that no rounding depends on."""


@dataclass(frozen=True)
class KeepOrder:
    """Replace functions on payloads that round by hashes.

    Takes what ``algebra`` leaves, and leaves that. Two kernels then agree where they compute the same operations on the
    same operands in the same order, so that their floats are the same in every bit. A sum and a product of two numbers
    have no order; a difference is a sum.

    Raises UnsupportedOperation for atomic sums, whose order is not the kernel's.
    """

    name: ClassVar[str] = "keep-order"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, "tt.atomic_rmw".__eq__):
                if kind_of(op) == f"{PAYLOAD}add":
                    raise UnsupportedOperation(op.name, "the order of atomic sums is not the kernel's")
            for op in matching(module, "tt.extern_elementwise".__eq__):
                found = _SYMBOL.match(text_attribute(op, "symbol"))
                if found is not None and found[1] not in _EXACT:
                    with ir.InsertionPoint(op):
                        op.results[0].replace_all_uses_with(_hashed(found[1], op))
                    op.erase()


def _hashed(name: str, op: Op) -> Value:
    operands = list(op.operands)
    if name == "sub":
        name, operands[1] = "add", function("neg", operands[1])
    salt = filled(op.results[0].type, field.salt(name))
    if name in _COMMUTE:
        return function("unordered", salt, *operands)
    return function(f"hash{len(operands)}", salt, *operands)
