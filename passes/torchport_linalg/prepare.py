"""Before the export: one function with structured control flow."""

from __future__ import annotations

from typing import Any

from mlir import ir, passmanager

from torchport_linalg.analysis.forms import operations
from torchport_linalg.choices import split_choices

__all__ = ["prepare"]


def prepare(module: Any) -> Any:
    """Lift branches between blocks and inline calls of an imported module; returns its kernel.

    Nothing of torchport's other lowerings is used: what is written from here on can be compared with theirs.
    """
    with module.context, ir.Location.unknown():
        if _names(module) & {"cf.br", "cf.cond_br", "cf.switch"}:
            passmanager.PassManager.parse("builtin.module(lift-cf-to-scf)").run(module.operation)
        functions = {ir.StringAttr(op.attributes["sym_name"]).value: op.operation for op in module.body.operations}
        while calls := [op for op in operations(module.operation) if op.name == "tt.call"]:
            for call in calls:  # inlined bodies may hold calls; this ends, as Triton has no recursion
                _inline(call, functions[ir.FlatSymbolRefAttr(call.attributes["callee"]).value])
        kernel = next(f for f in functions.values() if "sym_visibility" not in f.attributes)
        split_choices(kernel)
    return kernel


def _names(module: Any) -> set[str]:
    return {op.name for op in operations(module.operation)}


def _inline(call: Any, function: Any) -> None:
    copy = function.clone(ip=ir.InsertionPoint.after(function))
    block = copy.regions[0].blocks[0]
    for argument, value in zip(block.arguments, call.operands, strict=True):
        argument.replace_all_uses_with(value)
    *body, last = (op.operation for op in block.operations)
    for op in body:
        op.move_before(call)
    for result, value in zip(call.results, last.operands, strict=True):
        result.replace_all_uses_with(value)
    call.erase()
    copy.erase()
