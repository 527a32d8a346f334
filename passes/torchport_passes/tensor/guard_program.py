"""Skips program instances that could not write anything, and drops the mask they were skipped by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import ir
from mlir.dialects import arith, scf

from torchport_passes.ir.traits import COMBINES, EFFECTS, MASKS, PROGRAM_IDS, REPEATS

__all__ = ["GuardProgram"]


@dataclass(frozen=True)
class GuardProgram:
    """Hoist a scalar mask that every write of a kernel carries into one branch around the kernel's body.

    An assertion carries a mask where it holds wherever the mask does not (``condition | ~mask``).

    Takes scalarized IR. With blocks of one row (``XBLOCK = 1``) Inductor's ``xindex < xnumel`` is such a mask: inside
    the branch it is the constant true, and loads and stores lose it. Functions with several blocks are left alone.
    """

    name: ClassVar[str] = "guard-program"

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                blocks = function.regions[0].blocks
                if len(blocks) == 1:
                    _guard(blocks[0])


def _guard(block: Any) -> None:
    operations = [op.operation for op in block.operations]
    masks = [_mask_terms(op) for op in _effects(operations)]
    common = set.intersection(*masks) if masks else set()
    common = {m for m in common if _slice(m, block) is not None}
    if not common:
        return
    order = {op: i for i, op in enumerate(operations)}
    mask = min(common, key=lambda value: order[value.owner.operation])
    prefix = _slice(mask, block) or set()
    terminator = operations[-1]
    guard = scf.IfOp(mask, ip=ir.InsertionPoint(terminator))
    inner = guard.then_block
    with ir.InsertionPoint(inner):
        true = arith.ConstantOp(ir.IntegerType.get_signless(1), 1).result
        end = scf.YieldOp([])
    for op in operations[:-1]:
        if op not in prefix:
            op.move_before(end)
    mask.replace_all_uses_except(true, guard.operation)


def _effects(operations: list[Any]) -> list[Any]:
    found = []
    for op in operations:
        if op.name in EFFECTS:
            found.append(op)
        elif op.name not in COMBINES:
            for region in op.regions:
                for block in region.blocks:
                    found.extend(_effects([o.operation for o in block.operations]))
    return found


def _mask_terms(op: Any) -> set[Any]:
    """Scalars that are all true wherever the operation has an effect."""
    if op.name in ("tt.store", "tt.atomic_rmw") and len(op.operands) > MASKS[op.name]:
        return _conjuncts(op.operands[MASKS[op.name]])
    if op.name == "tt.assert":
        inverted = [_inverted(term) for term in _terms(op.operands[0], "arith.ori")]
        return {mask for value in inverted if value is not None for mask in _conjuncts(value)}
    return set()


def _inverted(value: Any) -> Any | None:
    """What ``value`` is the negation of, if it is one."""
    owner = value.owner
    if isinstance(owner, (ir.Operation, ir.OpView)) and owner.operation.name == "arith.xori":
        a, b = owner.operation.operands
        constant = b.owner.operation if isinstance(b.owner, (ir.Operation, ir.OpView)) else None
        if constant is not None and constant.name == "arith.constant" and str(constant.attributes["value"]) == "true":
            return a
    return None


def _conjuncts(value: Any) -> set[Any]:
    return _terms(value, "arith.andi")


def _terms(value: Any, connective: str) -> set[Any]:
    """The scalars that ``connective`` combines to ``value``, and all steps between."""
    terms = {value}
    owner = value.owner
    if isinstance(owner, (ir.Operation, ir.OpView)):
        name = owner.operation.name
        if name in REPEATS:
            terms |= _terms(owner.operation.operands[0], connective)
        elif name == connective:
            terms |= _terms(owner.operation.operands[0], connective) | _terms(owner.operation.operands[1], connective)
    return {t for t in terms if str(t.type) == "i1"}


def _slice(value: Any, block: Any) -> set[Any] | None:
    """The operations that compute ``value`` if all are scalar arithmetic on arguments and program ids, else None."""

    found: set[Any] = set()
    work = [value]
    while work:
        owner = work.pop().owner
        if not isinstance(owner, (ir.Operation, ir.OpView)):
            continue
        op = owner.operation
        if op in found:
            continue
        if op.block != block or not (op.name.startswith("arith.") or op.name in PROGRAM_IDS):
            return None
        found.add(op)
        work.extend(op.operands)
    return found or None
