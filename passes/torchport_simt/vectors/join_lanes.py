"""Makes one lane of all lanes of a work-group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import ir
from mlir.dialects import arith, func, scf, vector
from torchport_passes.ir.build import integer_type, is_pointer
from torchport_passes.ir.ops import int_attribute

from torchport_simt.distribute.build import clean_up, remove_unused
from torchport_simt.vectors import accesses
from torchport_simt.vectors.strides import Forms

__all__ = ["JoinLanes", "LanesPart"]


class LanesPart(Exception):
    """Lanes take different ways, which the elements of a vector cannot."""


@dataclass(frozen=True)
class JoinLanes:
    """Rewrite the code of a lane as code of one lane that does the work of all ``lanes``, with vectors.

    Takes scalar code in which all lanes branch alike. A value that is the same in all lanes stays a scalar, and so do
    indices and addresses that grow by a constant from lane to lane: what is kept is the first lane's. Others are
    vectors of ``lanes`` elements, pointers among them as i64. Accesses of several lanes become ``tp.vector_load`` and
    ``tp.vector_store``; if they have a ``stride`` (in bytes), their pointer is the first lane's, otherwise it is a
    vector. Barriers go: operations of a vector are complete before the next one starts.

    Raises LanesPart for a branch that not all lanes take.
    """

    name: ClassVar[str] = "join-lanes"
    removes: ClassVar[frozenset[str]] = frozenset({"tp.barrier", "tp.lane"})
    lanes: int = 16

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            for op in list(module.body.operations):
                if op.operation.name == "func.func" and len(op.operation.regions[0].blocks):
                    _Joiner(op, self.lanes).run()
            clean_up(module)
            remove_unused(module)


class _Joiner:
    def __init__(self, function: Any, lanes: int) -> None:
        self.old = function
        self.lanes = lanes
        self.forms = Forms(function.operation, lanes)
        self.bases: dict[Any, Any] = {}
        self.vectors: dict[Any, Any] = {}

    def run(self) -> None:
        """Write the new function in place of the old one."""
        old = self.old
        new = func.FuncOp(old.name.value, old.type, ip=ir.InsertionPoint(old))
        for attribute in old.attributes:
            name = attribute if isinstance(attribute, str) else attribute.name
            if name not in ("sym_name", "function_type"):
                new.attributes[name] = old.attributes[name]
        new.add_entry_block()
        self.bases.update(zip(old.arguments, new.arguments, strict=True))
        with ir.InsertionPoint(new.entry_block):
            self.block(old.entry_block)
            func.ReturnOp([])
        old.erase()

    def regular(self, value: Any) -> bool:
        """Whether a value is kept as the first lane's."""
        return self.forms.of(value).stride is not None

    def type_of(self, value: Any) -> Any:
        """The type of what is kept of a value."""
        return value.type if self.regular(value) else self.wide(value.type)

    def wide(self, type_: Any) -> Any:
        return ir.VectorType.get([self.lanes], integer_type(64) if is_pointer(type_) else type_)

    def base(self, value: Any) -> Any:
        """The first lane's value of a regular one."""
        return self.bases[value]

    def vector(self, value: Any) -> Any:
        """All lanes' values."""
        if not self.regular(value):
            return self.vectors[value]
        return self.spread(self.bases[value], self.forms.of(value).stride or 0)

    def spread(self, base: Any, stride: int) -> Any:
        """The vector ``base``, ``base + stride``, ..."""
        if is_pointer(base.type):
            base = ir.Operation.create("llvm.ptrtoint", [integer_type(64)], [base]).results[0]
        type_ = self.wide(base.type)
        whole = vector.BroadcastOp(type_, base).result
        if not stride:
            return whole
        width = base.type.width if isinstance(base.type, ir.IntegerType) else 64
        steps = [ir.IntegerAttr.get(base.type, _wrapped(i * stride, width)) for i in range(self.lanes)]
        steps_ = arith.ConstantOp(type_, ir.DenseElementsAttr.get(steps, type_)).result
        return arith.AddIOp(whole, steps_).result

    def kept(self, value: Any) -> Any:
        """What is kept of a value."""
        return self.base(value) if self.regular(value) else self.vectors[value]

    def as_kept(self, values: Any, targets: Any) -> list[Any]:
        """``values`` in the form that is kept of ``targets``, which they become."""
        pairs = zip(values, targets, strict=True)
        return [self.base(value) if self.regular(target) else self.vector(value) for value, target in pairs]

    def bind(self, values: Any, kept: Any) -> None:
        for value, one in zip(values, kept, strict=True):
            (self.bases if self.regular(value) else self.vectors)[value] = one

    def block(self, block: Any) -> Any:
        """Rewrite a block's operations, except the last, which is returned."""
        *body, last = (op.operation for op in block.operations)
        for op in body:
            self.operation(op)
        return last

    def operation(self, op: Any) -> None:
        handler = _HANDLERS.get(op.name)
        if handler is not None:
            handler(self, op)
        elif all(self.regular(result) for result in op.results) and all(map(self.regular, op.operands)):
            self.clone(op)
        else:
            self.widen(op)

    def clone(self, op: Any) -> None:
        """The operation on the first lane's values."""
        operands = [self.base(operand) for operand in op.operands]
        types = [result.type for result in op.results]
        new = ir.Operation.create(op.name, types, operands, dict(op.attributes.items()))
        self.bind(op.results, new.results)

    def widen(self, op: Any) -> None:
        """The operation on vectors."""
        operands = [self.vector(operand) for operand in op.operands]
        types = [self.wide(result.type) for result in op.results]
        new = ir.Operation.create(op.name, types, operands, dict(op.attributes.items()))
        self.bind(op.results, new.results)

    def _same(self, op: Any) -> None:
        """A condition stays a scalar where it is one."""
        condition, *rest = op.operands
        if self.regular(op.results[0]) or not self.regular(condition):
            (self.clone if self.regular(op.results[0]) else self.widen)(op)
            return
        operands = [self.base(condition), *(self.vector(value) for value in rest)]
        self.bind(op.results, ir.Operation.create(op.name, [operands[1].type], operands).results)

    def _lane(self, op: Any) -> None:
        self.bases[op.results[0]] = arith.ConstantOp(integer_type(32), 0).result

    def _nothing(self, op: Any) -> None:
        """Lanes do not wait for each other, and have no hints about values."""

    def _integer(self, op: Any) -> None:
        """Vectors of pointers are integers already."""
        if self.regular(op.results[0]):
            self.clone(op)
        else:
            self.vectors[op.results[0]] = self.vector(op.operands[0])

    def _call(self, op: Any) -> None:
        """A function of the C library."""
        if self.regular(op.results[0]):
            self.clone(op)
            return
        symbol = ir.StringAttr.get(str(ir.FlatSymbolRefAttr(op.attributes["callee"]).value))
        operands = [self.vector(operand) for operand in op.operands]
        new = ir.Operation.create("tp.extern", [self.wide(op.results[0].type)], operands, {"symbol": symbol})
        self.bind(op.results, new.results)

    def _address(self, op: Any) -> None:
        if self.regular(op.results[0]):
            self.clone(op)
            return
        pointer, offset = (self.vector(operand) for operand in op.operands)
        if offset.type != pointer.type:
            offset = arith.ExtSIOp(pointer.type, offset).result
        size = ir.IntegerAttr.get(integer_type(64), int_attribute(op, "elem_bytes"))
        sizes = arith.ConstantOp(pointer.type, ir.DenseElementsAttr.get_splat(pointer.type, size)).result
        self.bind(op.results, [arith.AddIOp(pointer, arith.MulIOp(offset, sizes).result).result])

    def _shuffle(self, op: Any) -> None:
        if self.regular(op.operands[0]) and not self.forms.of(op.operands[0]).stride:
            self.bind(op.results, [self.base(op.operands[0])])
            return
        keep, put = int_attribute(op, "keep"), int_attribute(op, "put")
        source = self.vector(op.operands[0])
        lanes = [(i & keep) | put for i in range(self.lanes)]
        self.bind(op.results, [vector.ShuffleOp(source, source, lanes).result])

    def _for(self, op: Any) -> None:
        low, high, step, *start = op.operands
        body = op.regions[0].blocks[0]
        index, *carried = body.arguments
        self._alike(op, (low, high, step))
        loop = scf.ForOp(*(self.base(v) for v in (low, high, step)), self.as_kept(start, carried))
        if "unsignedCmp" in op.attributes:
            loop.attributes["unsignedCmp"] = op.attributes["unsignedCmp"]
        with ir.InsertionPoint(loop.body):
            self.bases[index] = loop.induction_variable
            self.bind(carried, loop.inner_iter_args)
            scf.YieldOp(self.as_kept(self.block(body).operands, carried))
        self.bind(op.results, loop.results)

    def _while(self, op: Any) -> None:
        before, after = (region.blocks[0] for region in op.regions)
        types = [self.type_of(result) for result in op.results]
        loop = scf.WhileOp(types, self.as_kept(op.operands, before.arguments))
        first = loop.before.blocks.append(*map(self.type_of, before.arguments))
        second = loop.after.blocks.append(*types)
        with ir.InsertionPoint(first):
            self.bind(before.arguments, first.arguments)
            condition, *passed = self.block(before).operands
            self._alike(op, (condition,))
            scf.ConditionOp(self.base(condition), self.as_kept(passed, after.arguments))
        with ir.InsertionPoint(second):
            self.bind(after.arguments, second.arguments)
            scf.YieldOp(self.as_kept(self.block(after).operands, before.arguments))
        self.bind(op.results, loop.results)

    def _if(self, op: Any) -> None:
        regions = [region.blocks[0] for region in op.regions if len(region.blocks)]
        self._alike(op, op.operands)
        types = [self.type_of(result) for result in op.results]
        branch = scf.IfOp(self.base(op.operands[0]), types, has_else=len(regions) > 1)
        blocks = (branch.then_block, branch.else_block) if len(regions) > 1 else (branch.then_block,)
        for block, target in zip(regions, blocks, strict=True):
            with ir.InsertionPoint(target):
                scf.YieldOp(self.as_kept(self.block(block).operands, op.results))
        self.bind(op.results, branch.results)

    def _alike(self, op: Any, values: Sequence[Any]) -> None:
        if any(self.forms.of(value).stride != 0 for value in values):
            raise LanesPart(f"{op.name} at {op.location}")


def _wrapped(number: int, width: int) -> int:
    """A number as a signed integer of ``width`` bits."""
    half = 1 << (width - 1)
    return (number + half) % (2 * half) - half


_HANDLERS: dict[str, Callable[[_Joiner, Any], None]] = {
    "arith.select": _Joiner._same, "tp.lane": _Joiner._lane, "tp.barrier": _Joiner._nothing,
    "llvm.intr.assume": _Joiner._nothing, "llvm.ptrtoint": _Joiner._integer, "func.call": _Joiner._call,
    "tt.addptr": _Joiner._address, "tp.shuffle": _Joiner._shuffle, "tt.load": accesses.load,
    "tt.store": accesses.store, "tp.scratch_load": accesses.scratch_load, "tp.scratch_store": accesses.scratch_store,
    "scf.for": _Joiner._for, "scf.while": _Joiner._while, "scf.if": _Joiner._if,
}  # fmt: skip
