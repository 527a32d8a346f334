"""Turns branches between blocks into structured control flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir, passmanager
from mlir.dialects import arith, scf

from torchport_passes.ir.ops import matching
from torchport_passes.ir.types import Block, Module, Op

__all__ = ["LiftBranches"]


@dataclass(frozen=True)
class LiftBranches:
    """Replace ``cf.br`` and ``cf.cond_br`` by ``scf.if`` and ``scf.while``.

    Takes imported TTIR, in which a function with an early ``return`` has several blocks. Leaves functions of one block.
    Upstream's ``lift-cf-to-scf`` does the work. The ``scf.index_switch`` operations that it emits where paths meet
    become chains of ``scf.if``. A value that a path does not define is ``ub.poison`` there.
    """

    name: ClassVar[str] = "lift-branches"

    def apply(self, module: Module) -> None:
        if not matching(module, lambda name: name.startswith("cf.")):
            return
        with module.context, ir.Location.unknown():
            passmanager.PassManager.parse("builtin.module(lift-cf-to-scf,canonicalize)").run(module.operation)
            for switch in reversed(matching(module, "scf.index_switch".__eq__)):
                _chain(switch)


def _chain(switch: Op) -> None:
    """``scf.index_switch`` as ``if index == case 0 ... else if ... else default``."""
    types = [result.type for result in switch.results]
    index = switch.operands[0]
    cases = list(ir.DenseI64ArrayAttr(switch.attributes["cases"]))
    default, *regions = (region.blocks[0] for region in switch.regions)
    point, outermost = ir.InsertionPoint(switch), None
    for case, body in zip(cases, regions, strict=True):
        with point:
            number = arith.ConstantOp(ir.IndexType.get(), case).result
            branch = scf.IfOp(arith.CmpIOp(arith.CmpIPredicate.eq, index, number).result, types, has_else=True)
            if outermost is not None:
                scf.YieldOp(list(branch.results))
        outermost = outermost or branch
        _move(body, branch.then_block)
        point = ir.InsertionPoint(branch.else_block)
    _move(default, point.block)
    for result, new in zip(switch.results, outermost.results if outermost is not None else [], strict=True):
        result.replace_all_uses_with(new)
    switch.erase()


def _move(source: Block, target: Block) -> None:
    for op in list(source.operations):
        target.append(op.operation)
