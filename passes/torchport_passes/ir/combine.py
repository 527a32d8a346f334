"""Emits the combine functions of reductions and scans, on scalars or on vectors of independent elements."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith, vector

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.elementwise import elementwise
from torchport_passes.ir.ops import element_type
from torchport_passes.ir.traits import is_elementwise
from torchport_passes.ir.types import Block, Op, Region, Type, Value

__all__ = ["apply_region", "is_straight", "replace_operands"]

_ENDS = ("tt.reduce.return", "tt.scan.return", "scf.yield")


def apply_region(region: Region, arguments: list[Value], lanes: int | None) -> list[Value]:
    """Emit a combine region at the current insertion point. Returns the combined values.

    ``arguments``: accumulators, then values.
    ``lanes``: the number of lanes of these vectors; None for scalars.

    Branches become selections, and loops run lane by lane. Raises UnsupportedOperation for an operation that may not
    stand in a combine function.
    """
    block = region.blocks[0]
    return _RegionEmitter(lanes, dict(zip(block.arguments, arguments, strict=True))).block(block)


def is_straight(region: Region) -> bool:
    """Whether a combine region is arithmetic and selections only, without effects and loops."""
    return all(_is_pure(o.operation) for o in region.blocks[0].operations)


class _RegionEmitter:
    """Emits one combine region. ``values``: the new value of each value of the region."""

    def __init__(self, lanes: int | None, values: dict[Value, Value]) -> None:
        self.lanes = lanes
        self.values = values

    def block(self, block: Block) -> list[Value]:
        """Emit a block; returns the values that it ends with."""
        *body, end = (view.operation for view in block.operations)
        for op in body:
            self.operation(op)
        return [self.operand(v) for v in end.operands]

    def operation(self, op: Op) -> None:
        """Emit one operation, and remember its results."""
        if op.name == "arith.constant":
            scalar = ir.Operation.create(op.name, [op.results[0].type], [], dict(op.attributes.items())).results[0]
            self.values[op.results[0]] = self.operand(scalar)
        elif is_elementwise(op.name) and len(op.results) == 1:
            operands = [self.operand(v) for v in op.operands]
            self.values[op.results[0]] = elementwise(op, operands, self.type(element_type(op.results[0].type)))
        elif op.name == "tt.assert":
            self.assertion(op)
        elif op.name == "scf.if" and _is_selection(op):
            self.selection(op)
        elif op.name in ("scf.if", "scf.while", "scf.for"):
            self.each_lane(op)
        else:
            raise UnsupportedOperation(op.name, "the combine function of a reduction or scan may not contain it")

    def type(self, element: Type) -> Type:
        """The type of a value with this element type."""
        return element if self.lanes is None else ir.VectorType.get([self.lanes], element)

    def operand(self, value: Value) -> Value:
        """The new value of a value of the region; a scalar from outside, in every lane."""
        if value in self.values:
            return self.values[value]
        wanted = self.type(value.type)
        return value if wanted == value.type else vector.BroadcastOp(wanted, value).result

    def selection(self, op: Op) -> None:
        """Emit both branches, then select one of the results in each lane."""
        condition = self.operand(op.operands[0])
        branches = [self.block(region.blocks[0]) for region in op.regions]
        for result, then, otherwise in zip(op.results, *branches, strict=True):
            self.values[result] = arith.SelectOp(condition, then, otherwise).result

    def assertion(self, op: Op) -> None:
        """Assert that the condition holds in all lanes."""
        condition = self.operand(op.operands[0])
        if self.lanes is not None:
            bit = ir.IntegerType.get_signless(1)
            condition = vector.ReductionOp(bit, vector.CombiningKind.AND, condition).result
        ir.Operation.create("tt.assert", [], [condition], dict(op.attributes.items()))

    def each_lane(self, op: Op) -> None:
        """Emit a copy of control flow for each lane."""
        used = [v for v in _operands(op) if v in self.values]
        if self.lanes is None:
            copy = op.clone()
            replace_operands(copy, {v: self.values[v] for v in used})
            self.values.update(zip(op.results, copy.results, strict=True))
            return
        results = [ir.Operation.create("llvm.mlir.zero", [self.type(r.type)]).results[0] for r in op.results]
        for lane in range(self.lanes):
            scalars = {v: vector.ExtractOp(self.values[v], [], [lane]).result for v in used}
            copy = op.clone()
            replace_operands(copy, scalars)
            results = [vector.InsertOp(n, r, [], [lane]).result for n, r in zip(copy.results, results, strict=True)]
        self.values.update(zip(op.results, results, strict=True))


def _is_pure(op: Op) -> bool:
    """Whether an operation can be emitted on vectors, without effects."""
    return (
        op.name in _ENDS
        or op.name == "arith.constant"
        or (is_elementwise(op.name) and len(op.results) == 1)
        or (op.name == "scf.if" and _is_selection(op))
    )


def _is_selection(op: Op) -> bool:
    """Whether a branch has results, and contains arithmetic and selections only."""
    inner = [o.operation for region in op.regions for block in region.blocks for o in block.operations]
    return len(op.results) > 0 and all(_is_pure(o) for o in inner)


def _operands(op: Op) -> dict[Value, None]:
    """The operands of an operation and of those inside it: a set in a fixed order."""
    operands = dict.fromkeys(op.operands)
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                operands.update(_operands(inner.operation))
    return operands


def replace_operands(op: Op, values: dict[Value, Value]) -> None:
    """Replace operands of an operation, and of those inside it, by their new values."""
    for i, operand in enumerate(op.operands):
        if operand in values:
            op.operands[i] = values[operand]
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                replace_operands(inner.operation, values)
