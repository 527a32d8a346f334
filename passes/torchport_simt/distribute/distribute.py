"""Distributes the elements of tensors over lanes: one program instance becomes a work-group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from mlir import ir
from mlir.dialects import arith, func, scf
from torchport_passes.analysis.provenance import SourceArguments
from torchport_passes.ir.build import integer_type
from torchport_passes.ir.elementwise import elementwise
from torchport_passes.ir.ops import element_type, is_tensor, matching, shape_of
from torchport_passes.ir.traits import GLOBAL_ACCESSES, is_elementwise

from torchport.errors import UnsupportedOperation
from torchport_simt.distribute import dot, exchange, memory
from torchport_simt.distribute import reduce as reductions
from torchport_simt.distribute.build import clean_up, remove_unused
from torchport_simt.distribute.index import ElementDistribution
from torchport_simt.distribute.region import copy
from torchport_simt.distribute.sort import sort
from torchport_simt.distribute.values import Values, behind_views

__all__ = ["Distribute"]


@dataclass(frozen=True)
class Distribute:
    """Rewrite each kernel as the code of one lane of a work-group of ``lanes`` lanes, which runs a program instance.

    Takes functions of one block with dots of one type (``lift-branches``, ``inline-calls``, ``scalarize``,
    ``decompose-dot``). Leaves scalar ``arith``, ``math``, ``scf`` and ``tt`` operations and those listed in
    ``ir/dialects/tp.py`` under "of a lane". Element ``e`` of a tensor belongs to lane ``e % lanes``. Elements that
    another lane needs go through local memory, between barriers that every lane of the work-group reaches. Scalars are
    the same in every lane. Each pointer argument gets ``tp.access`` (``r``, ``w`` or ``rw``), each argument
    ``tp.type``, the type that it is passed as. ``vector`` says that ``join-lanes`` follows, which makes the lanes one,
    ``registers`` how many vectors of f32 its registers hold, ``fused`` that dots are sums of fused multiply-adds,
    ``unit`` how many neighbours each lane holds, in turns, for it to access at once.

    Raises UnsupportedOperation for operations that lanes cannot compute together.
    """

    name: ClassVar[str] = "distribute"
    removes: ClassVar[frozenset[str]] = frozenset(
        {"tp.flip", "tp.sort", "tt.broadcast", "tt.cat", "tt.dot", "tt.expand_dims", "tt.gather", "tt.histogram",
         "tt.join", "tt.make_range", "tt.reduce", "tt.reduce.return", "tt.reshape", "tt.scan", "tt.scan.return",
         "tt.splat", "tt.split", "tt.trans", "tt.unsplat"}
    )  # fmt: skip
    lanes: int = 128
    vector: bool = False
    registers: int = 0
    fused: bool = True
    unit: int = 1

    def apply(self, module: Any) -> None:
        roots = SourceArguments(module)
        with module.context, ir.Location.unknown():
            for op in list(module.body.operations):
                if op.operation.name == "func.func":
                    _Distributor(op, self, roots).run()
            clean_up(module)
            remove_unused(module)


class _Distributor:
    def __init__(self, function: Any, options: Distribute, roots: SourceArguments) -> None:
        lanes = options.lanes
        self.old = function
        self.fused = options.fused
        self.vector = options.vector
        self.unit = options.unit
        self.vectors = options.registers or (16 if lanes == 8 else 32)  # AVX2 has 16; AVX-512 and NEON have 32
        self.roots = roots
        self.order = memory.Order(roots, lanes)
        self.count = lanes
        accesses = [self.order.access(op) for op in matching(function, GLOBAL_ACCESSES.__contains__)]
        self.accesses = accesses
        self.written = {root for access in accesses if access.writes for root in access.roots or ()}
        self.anything = any(access.writes and access.roots is None for access in accesses)

    def run(self) -> None:
        """Write the new function in place of the old one."""
        old = self.old
        new = func.FuncOp(old.name.value, old.type, ip=ir.InsertionPoint(old))
        arguments = [{n.name: n.attr for n in ir.DictAttr(a)} for a in old.arg_attrs]
        for i, argument in enumerate(old.arguments):
            arguments[i]["tp.type"] = ir.TypeAttr.get(argument.type)
            if str(argument.type) == "!llvm.ptr":
                arguments[i]["tp.access"] = ir.StringAttr.get(self._access(i))
        new.attributes["arg_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(a) for a in arguments])
        new.add_entry_block()
        with ir.InsertionPoint(new.entry_block):
            lane = ir.Operation.create("tp.lane", [integer_type(32)])
            distribution = ElementDistribution(lane.results[0], self.count, self.unit)
            self.values = Values(distribution, lane, self._constant, self.vector, self.fused)
            self.values.scalars.update(zip(old.arguments, new.arguments, strict=True))
            self._block(old.entry_block)
            func.ReturnOp([])
        old.erase()

    def _access(self, index: int) -> str:
        """How a kernel's argument is accessed: ``r``, ``w`` or ``rw``."""
        accesses = [access for access in self.accesses if access.roots is None or index in access.roots]
        reads, writes = any(access.reads for access in accesses), any(access.writes for access in accesses)
        return ("r" if reads else "") + ("w" if writes else "")

    def _constant(self, pointer: Any) -> bool:
        """Whether nothing in the kernel writes where ``pointer`` points."""
        roots = self.roots.of(pointer)
        return roots is not None and not self.anything and self.written.isdisjoint(roots)

    def _block(self, block: Any) -> Any:
        """Rewrite a block's operations, except the last, which is returned."""
        *body, last = (op.operation for op in block.operations)
        for op in body:
            self._operation(op)
        return last

    def _operation(self, op: Any) -> None:
        handler = _HANDLERS.get(op.name)
        if op.name in GLOBAL_ACCESSES:
            self.order.meet(op, self.values)
        if handler is not None:
            handler(self, op)
        elif any(is_tensor(value) for value in (*op.results, *op.operands)):
            if not (is_elementwise(op.name) and len(op.results) == 1):
                reason = "lanes have no way to compute it together"
                raise UnsupportedOperation(op.name, reason, location=str(op.location))
            self._elementwise(op)
        else:
            copy(op, self.values)

    def _elementwise(self, op: Any) -> None:
        if self.values.cheap(op.results[0]) or self.values.awaits_dots(op.results[0]):
            return
        owned = [self.values.own(operand) for operand in op.operands]
        count = max(map(len, owned))
        operands = [  # a scalar condition chooses between tensors
            own if is_tensor(operand) else own * count for operand, own in zip(op.operands, owned, strict=True)
        ]
        type_ = element_type(op.results[0].type)
        computed = [elementwise(op, list(each), type_) for each in zip(*operands, strict=True)]
        self.values.registers[op.results[0]] = computed

    def _flat(self, values: Any) -> list[Any]:
        """What a lane holds of the values, in one list: scalars, and registers of tensors."""
        return [element for value in values for element in self.values.own(value)]

    def _bind(self, values: Any, flat: Any) -> None:
        """The inverse of ``_flat``: ``flat`` now represents ``values``."""
        elements = iter(flat)
        for value in values:
            shape = shape_of(value)
            if shape is None:
                self.values.scalars[value] = next(elements)
            else:
                self.values.registers[value] = list(islice(elements, self.values.distribution.registers(shape)))

    def _types(self, values: Any) -> list[Any]:
        """The types of ``_flat``."""
        types = []
        for value in values:
            shape = shape_of(value)
            types += [element_type(value.type)] * (1 if shape is None else self.values.distribution.registers(shape))
        return types

    def _for(self, op: Any) -> None:
        dot.share_operands(op, self.values)
        low, high, step, *start = op.operands
        bounds = [self.values.at(v) for v in (low, high, step)]
        loop = scf.ForOp(*bounds, self._flat(start))
        body = op.regions[0].blocks[0]
        index, *carried = body.arguments
        with ir.InsertionPoint(loop.body):
            self._enter(op)
            self.values.scalars[index] = loop.induction_variable
            self._bind(carried, loop.inner_iter_args)
            last = self._block(body)
            scf.YieldOp(self._flat(last.operands))
            self._leave()
        self._bind(op.results, loop.results)

    def _while(self, op: Any) -> None:
        dot.share_operands(op, self.values)
        before, after = (region.blocks[0] for region in op.regions)
        loop = scf.WhileOp(self._types(op.results), self._flat(op.operands))
        first = loop.before.blocks.append(*self._types(before.arguments))
        second = loop.after.blocks.append(*self._types(op.results))
        with ir.InsertionPoint(first):
            self._enter(op)
            self._bind(before.arguments, first.arguments)
            last = self._block(before)
            scf.ConditionOp(self.values.at(last.operands[0]), self._flat(list(last.operands)[1:]))
            self._leave()
        with ir.InsertionPoint(second):
            self._enter(op)
            self._bind(after.arguments, second.arguments)
            last = self._block(after)
            scf.YieldOp(self._flat(last.operands))
            self._leave()
        self._bind(op.results, loop.results)

    def _if(self, op: Any) -> None:
        regions = [region.blocks[0] for region in op.regions if len(region.blocks)]
        branch = scf.IfOp(self.values.at(op.operands[0]), self._types(op.results), has_else=len(regions) > 1)
        pending = list(self.order.pending)
        left = []
        blocks = (branch.then_block, branch.else_block) if len(regions) > 1 else (branch.then_block,)
        for block, target in zip(regions, blocks, strict=True):
            self.order.pending = list(pending)
            with ir.InsertionPoint(target):
                self.values.open()
                last = self._block(block)
                scf.YieldOp(self._flat(last.operands))
                self.values.close()
            left += self.order.pending
        self.order.pending = list(dict.fromkeys([*pending, *left]))
        self._bind(op.results, branch.results)

    def _enter(self, op: Any) -> None:
        self.order.enter(matching(op, GLOBAL_ACCESSES.__contains__))
        self.values.loops += 1
        self.values.open()

    def _leave(self) -> None:
        self.values.loops -= 1
        self.values.close()

    def _assert(self, op: Any) -> None:
        for condition in self.values.own(op.operands[0]):
            ir.Operation.create("tp.assert", [], [condition], {"message": op.attributes["message"]})

    def _print(self, op: Any) -> None:
        """Values are printed with the index of their element."""
        attributes = dict(op.attributes.items())
        shape = shape_of(op.operands[0]) if len(op.operands) else ()
        for k, value in enumerate(self._flat(op.operands) or [None]):
            index = self.values.distribution.value(self.values.distribution.own(shape or (), k))
            first = self.values.distribution.is_first(shape or ())
            shown = [] if value is None else [value]
            attributes["shape"] = ir.DenseI64ArrayAttr.get(list(shape or ()))
            mask = first if first is not None else arith.ConstantOp(integer_type(1), 1).result
            ir.Operation.create("tp.print", [], [index, mask, *shown], attributes)

    def _view(self, op: Any) -> None:
        """Rewrite an index map. What it moves through local memory is moved here, not in a later loop."""
        for result in op.results:
            if not self.values.cheap(result) and not self._left_to_users(result):
                self.values.own(result)

    def _left_to_users(self, result: Any) -> bool:
        """Whether what an index map gives is read by dots and stores alone, which see through the map."""
        if self.vector:
            return dot.moved(result)
        return self.values.direct and self.values.awaits_dots(behind_views(result)) and dot.moved(result)

    def _unsplat(self, op: Any) -> None:
        """The one element of a tensor, which every lane holds."""
        self.values.scalars[op.results[0]] = self.values.own(op.operands[0])[0]

    def _skip(self, op: Any) -> None:
        """A constant or a range: emitted at its uses."""
        if not is_tensor(op.results[0]):
            copy(op, self.values)

    def _barrier(self, op: Any) -> None:
        self.order.barrier(self.values)


_HANDLERS: dict[str, Callable[[_Distributor, Any], None]] = {
    "tt.load": lambda d, op: memory.load(op, d.values),
    "tt.store": lambda d, op: memory.store(op, d.values),
    "tt.atomic_rmw": lambda d, op: memory.atomic(op, d.values, d.order),
    "tt.atomic_cas": lambda d, op: memory.atomic(op, d.values, d.order),
    "tt.reduce": lambda d, op: reductions.reduce(op, d.values),
    "tt.scan": lambda d, op: reductions.scan(op, d.values),
    "tt.dot": lambda d, op: dot.dot(op, d.values, d.vectors),
    "tt.gather": lambda d, op: exchange.gather(op, d.values),
    "tp.sort": lambda d, op: sort(op, d.values),
    "tt.histogram": lambda d, op: exchange.histogram(op, d.values),
    "tt.map_elementwise": lambda d, op: exchange.map_elementwise(op, d.values),
    "scf.for": _Distributor._for,
    "scf.while": _Distributor._while,
    "scf.if": _Distributor._if,
    "tt.assert": _Distributor._assert,
    "tt.print": _Distributor._print,
    "tt.unsplat": _Distributor._unsplat,
    "tp.barrier": _Distributor._barrier,
    "arith.constant": _Distributor._skip,
    "tt.make_range": _Distributor._skip,
    **dict.fromkeys(
        (
            "tt.reshape", "tt.expand_dims", "tt.splat", "tt.broadcast", "tt.trans", "tt.join", "tt.cat", "tt.split",
            "tp.flip",
        ),
        _Distributor._view,
    ),
}  # fmt: skip
