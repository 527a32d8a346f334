"""Skips program instances whose writes are all masked off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith, scf

from torchport_passes.ir.ops import owner_of
from torchport_passes.ir.slices import backward_slice
from torchport_passes.ir.traits import COMBINES, EFFECTS, MASKS, PROGRAM_IDS, REPEATS
from torchport_passes.ir.types import Block, Module, Op, Value

__all__ = ["GuardProgram"]


@dataclass(frozen=True)
class GuardProgram:
    """Hoist a scalar mask that all writes of a kernel have into one branch around the kernel's body.

    Takes scalarized IR. With blocks of one row (``XBLOCK = 1``) Inductor's ``xindex < xnumel`` is such a mask. Inside
    the branch it is the constant true, so loads and stores lose it. An assertion has a mask if it holds wherever the
    mask does not (``condition | ~mask``). Functions with several blocks do not change.
    """

    name: ClassVar[str] = "guard-program"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                blocks = function.regions[0].blocks
                if len(blocks) == 1:
                    _guard(blocks[0])


def _guard(block: Block) -> None:
    operations = [op.operation for op in block.operations]
    masks = [_mask_terms(op) for op in _effects(operations)]
    shared = set.intersection(*masks) if masks else set()
    slices = {mask: slice_ for mask in shared if (slice_ := _scalar_slice(mask, block)) is not None}
    if not slices:
        return
    order = {op: i for i, op in enumerate(operations)}
    mask = min(slices, key=lambda value: order[owner_of(value)])
    terminator = operations[-1]
    guard = scf.IfOp(mask, ip=ir.InsertionPoint(terminator))
    inner = guard.then_block
    with ir.InsertionPoint(inner):
        true = arith.ConstantOp(ir.IntegerType.get_signless(1), 1).result
        end = scf.YieldOp([])
    for op in operations[:-1]:
        if op not in slices[mask]:
            op.move_before(end)
    mask.replace_all_uses_except(true, guard.operation)


def _effects(operations: list[Op]) -> list[Op]:
    """The operations, nested ones too, that have an effect outside of the program instance."""
    effects = []
    for op in operations:
        if op.name in EFFECTS:
            effects.append(op)
        elif op.name not in COMBINES:
            for region in op.regions:
                for block in region.blocks:
                    effects.extend(_effects([o.operation for o in block.operations]))
    return effects


def _mask_terms(op: Op) -> set[Value]:
    """Scalars that are all true wherever the operation has an effect."""
    if op.name in ("tt.store", "tt.atomic_rmw") and len(op.operands) > MASKS[op.name]:
        return _conjuncts(op.operands[MASKS[op.name]])
    if op.name == "tt.assert":
        inverted = [_inverted(term) for term in _terms(op.operands[0], "arith.ori")]
        return {mask for value in inverted if value is not None for mask in _conjuncts(value)}
    return set()


def _inverted(value: Value) -> Value | None:
    """The operand of a negation, None if ``value`` is none."""
    op = owner_of(value)
    if op is None or op.name != "arith.xori":
        return None
    operand, constant = op.operands[0], owner_of(op.operands[1])
    is_true = constant is not None and constant.name == "arith.constant" and str(constant.attributes["value"]) == "true"
    return operand if is_true else None


def _conjuncts(value: Value) -> set[Value]:
    return _terms(value, "arith.andi")


def _terms(value: Value, connective: str) -> set[Value]:
    """The scalars that ``connective`` combines to ``value``, and all steps between."""
    terms = {value}
    op = owner_of(value)
    if op is not None and (op.name in REPEATS or op.name == connective):
        for operand in op.operands:
            terms |= _terms(operand, connective)
    return {t for t in terms if str(t.type) == "i1"}


def _scalar_slice(value: Value, block: Block) -> set[Op] | None:
    """The operations that compute ``value`` if all are scalar arithmetic on arguments and program ids, else None."""
    operations = set(backward_slice(value, lambda op: op.operands))
    movable = all(op.block == block and (op.name.startswith("arith.") or op.name in PROGRAM_IDS) for op in operations)
    return operations if operations and movable else None
