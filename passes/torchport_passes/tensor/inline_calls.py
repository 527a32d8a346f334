"""Inlines calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport_passes.ir.ops import matching, text_attribute
from torchport_passes.ir.types import Module, Op

__all__ = ["InlineCalls"]


@dataclass(frozen=True)
class InlineCalls:
    """Replace every call of a function of the module by the function's body; only kernels are left.

    Takes functions of one block (``lift-branches``). Triton inlines most functions itself, but not those marked
    ``noinline``, nor those with an early return that are called inside a loop or a branch. Inlined functions need no
    calling convention for tensors, and have the kernel's program ids.
    """

    name: ClassVar[str] = "inline-calls"
    removes: ClassVar[frozenset[str]] = frozenset({"tt.call"})

    def apply(self, module: Module) -> None:
        functions = {_symbol(op.operation): op.operation for op in module.body.operations}
        with module.context, ir.Location.unknown():
            # Inlined bodies may contain calls. This ends, as Triton has no recursion.
            while calls := matching(module, "tt.call".__eq__):
                for call in calls:
                    _inline(call, functions[ir.FlatSymbolRefAttr(call.attributes["callee"]).value])
        for function in functions.values():
            if "sym_visibility" in function.attributes and len(function.regions[0].blocks) > 0:
                function.erase()


def _symbol(function: Op) -> str:
    return text_attribute(function, "sym_name")


def _inline(call: Op, function: Op) -> None:
    copy = function.clone(ip=ir.InsertionPoint.after(function))
    block = copy.regions[0].blocks[0]
    for argument, value in zip(block.arguments, call.operands, strict=True):
        argument.replace_all_uses_with(value)
    *body, terminator = (op.operation for op in block.operations)
    for op in body:
        op.move_before(call)
    for result, value in zip(call.results, terminator.operands, strict=True):
        result.replace_all_uses_with(value)
    call.erase()
    copy.erase()
