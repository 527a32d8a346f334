"""Masked loads and stores of 16-bit floats, made to move integers.

Without vector instructions for a mask of 16-bit lanes (everything below AVX-512BW), LLVM takes such an operation apart
into scalars. A scalar ``bfloat`` has no register of its own there: LLVM passes it on as an f32 and rounds it back with
a call of ``__truncsfbf2``, a function of compiler-rt that no library of the process has. Integers stay what they are.
"""

from __future__ import annotations

from typing import Any

from mlir import ir
from mlir.dialects import arith

from torchport_passes._ops import matching

__all__ = ["move_masked_bits"]

_LOADS = frozenset({"llvm.intr.masked.load", "llvm.intr.masked.gather"})
_STORES = frozenset({"llvm.intr.masked.store", "llvm.intr.masked.scatter"})


def move_masked_bits(module: Any) -> None:
    """Replace each masked load or store of f16 or bf16 by one of i16 and a bitcast."""
    for op in matching(module, (_LOADS | _STORES).__contains__):
        # (pointers, mask, pass-through) of a load, (data, pointers, mask) of a store
        place = 2 if op.name in _LOADS else 0
        vector = ir.VectorType(op.operands[place].type)
        if vector.element_type not in (ir.F16Type.get(), ir.BF16Type.get()):
            continue
        with ir.InsertionPoint(op), op.location:
            bits = ir.VectorType.get(vector.shape, ir.IntegerType.get_signless(16))
            operands = list(op.operands)
            operands[place] = arith.BitcastOp(bits, operands[place]).result
            results = [bits] if op.name in _LOADS else []
            attributes = {name: op.attributes[name] for name in op.attributes}
            moved = ir.Operation.create(op.name, results, operands, attributes)
            if results:
                op.results[0].replace_all_uses_with(arith.BitcastOp(vector, moved.results[0]).result)
        op.erase()
