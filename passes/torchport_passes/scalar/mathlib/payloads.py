"""Functions on payloads (``torchport.arithmetic.payload``) as functions of the module, called once for each lane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mlir import ir
from mlir.dialects import arith, func, scf, vector

from torchport.arithmetic.payload.functions import FUNCTIONS
from torchport_passes.scalar.mathlib.calls import Externals, Implementation
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["PAYLOADS"]

_PURE = '["nounwind", "willreturn", ["memory", "0"]]'


def _called(function: str, externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
    """The function's value in each lane."""
    call = partial(_Emitter(externals).call, function)
    type_ = args[0].type
    if not isinstance(type_, ir.VectorType):
        return call(*args)
    out = args[0].const(0).value
    for lane in range(ir.VectorType(type_).shape[0]):
        scalars = [VectorValue(vector.extract(a.value, [], [lane])) for a in args]
        out = vector.insert(call(*scalars).value, out, [], [lane])
    return VectorValue(out)


class _Emitter:
    """The machine (``torchport.arithmetic.payload.machine.Machine``) that emits IR on scalars."""

    def __init__(self, externals: Externals) -> None:
        self.externals = externals

    def constant(self, number: int, like: VectorValue) -> VectorValue:
        return like.const(number)

    def select(self, condition: VectorValue, then: VectorValue | int, otherwise: VectorValue | int) -> VectorValue:
        return select(condition, then, otherwise)

    def remainder(self, x: VectorValue, by: VectorValue | int) -> VectorValue:
        divisor = by if isinstance(by, VectorValue) else x.const(by)
        return VectorValue(arith.remsi(x.value, divisor.value))

    def quotient(self, x: VectorValue, by: VectorValue | int) -> VectorValue:
        divisor = by if isinstance(by, VectorValue) else x.const(by)
        return VectorValue(arith.divsi(x.value, divisor.value))

    def position(self, x: VectorValue, numbers: Sequence[int]) -> VectorValue:
        found = x.const(-1)
        for place, number in enumerate(numbers):
            found = select(x.eq(number), place, found)
        return found

    def branch(
        self, condition: VectorValue, then: Callable[[], VectorValue], otherwise: Callable[[], VectorValue]
    ) -> VectorValue:
        choice = scf.IfOp(condition.value, [ir.IntegerType.get_signless(64)], has_else=True)
        for block, emit in ((choice.then_block, then), (choice.else_block, otherwise)):
            with ir.InsertionPoint(block):
                scf.YieldOp([emit().value])
        return VectorValue(choice.results[0])

    def repeat(
        self, count: int, state: Sequence[VectorValue], body: Callable[..., Sequence[VectorValue]]
    ) -> Sequence[VectorValue]:
        first, last, step = (state[0].const(number).value for number in (0, count, 1))
        loop = scf.ForOp(first, last, step, [value.value for value in state])
        with ir.InsertionPoint(loop.body):
            scf.YieldOp([value.value for value in body(*map(VectorValue, loop.inner_iter_args))])
        return [VectorValue(result) for result in loop.results]

    def call(self, name: str, *operands: VectorValue) -> VectorValue:
        symbol = f"payload_{name}"
        if self.externals.declare(symbol):
            self._define(symbol, name)
        i64 = ir.IntegerType.get_signless(64)
        return VectorValue(func.CallOp([i64], symbol, [operand.value for operand in operands]).result)

    def _define(self, symbol: str, name: str) -> None:
        i64, definition = ir.IntegerType.get_signless(64), FUNCTIONS[name]
        with ir.InsertionPoint.at_block_begin(self.externals.module.body):
            function: Any = func.FuncOp(symbol, ([i64] * definition.arity, [i64]), visibility="private")
        function.attributes["passthrough"] = ir.Attribute.parse(_PURE)
        function.attributes["llvm.linkage"] = ir.Attribute.parse("#llvm.linkage<internal>")
        with ir.InsertionPoint(function.add_entry_block()):
            result = definition.body(self, *map(VectorValue, function.arguments))
            func.ReturnOp([result.value])


PAYLOADS: dict[str, Implementation] = {f"payload_{name}": partial(_called, name) for name in FUNCTIONS}
"""By the name of the extern operation."""
