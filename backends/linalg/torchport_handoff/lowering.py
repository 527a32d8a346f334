"""Linalg to LLVM by upstream's passes: what a vendor's compiler would do, written with nothing of torchport's."""

from __future__ import annotations

from typing import Any

from torchport_handoff.booleans import store_bytes

__all__ = ["PASSES", "lower"]

_BUFFERS = (
    "one-shot-bufferize{allow-return-allocs-from-loops=true}",
    "canonicalize",
    "func.func(buffer-loop-hoisting)",
)
_LOOPS = ("convert-linalg-to-loops", "math-extend-to-supported-types{target-type=f32}")
_EXACT = {"math.expm1": "expm1", "math.log1p": "log1p"}
"""Functions that upstream's lowering to LLVM computes as those of ``exp`` and ``log``, far off near 0."""
_REST = (
    "arith-emulate-unsupported-floats{source-types=bf16 target-type=f32}",
    "expand-strided-metadata",
    "lower-affine",
    "canonicalize",
    "cse",
    "arith-expand{include-bf16=true}",
    "convert-scf-to-cf",
    "convert-math-to-llvm",
    "convert-math-to-libm",
    "finalize-memref-to-llvm{use-generic-functions=true}",
    "convert-arith-to-llvm",
    "convert-ub-to-llvm",
    "convert-index-to-llvm",
    "convert-func-to-llvm",
    "convert-cf-to-llvm",
    "reconcile-unrealized-casts",
)
PASSES = (*_BUFFERS, *_LOOPS, *_REST)
"""The passes, in order; ``_rewrite`` follows ``buffer-loop-hoisting``, ``store_bytes`` and ``_calls`` the loops."""


def lower(text: str) -> Any:
    """Parse a module and lower it to the llvm dialect, in a context of its own.

    Raises mlir.ir.MLIRError for a module that is not valid, or that a pass does not lower.
    """
    from mlir import ir

    context = ir.Context()
    context.enable_multithreading(False)
    with context, ir.Location.unknown():
        module = ir.Module.parse(text)
        module.operation.verify()
        _run(module, _BUFFERS)
        _rewrite(module)
        _run(module, _LOOPS)
        store_bytes(module)
        _calls(module)
        _run(module, _REST)
    return module


def _run(module: Any, passes: tuple[str, ...]) -> None:
    from mlir.passmanager import PassManager

    PassManager.parse(f"builtin.module({','.join(passes)})").run(module.operation)


def _calls(module: Any) -> None:
    """Functions of ``_EXACT`` become calls of C's."""
    from mlir import ir
    from mlir.dialects import func

    found: list[Any] = []

    def visit(op: Any) -> Any:
        if op.name in _EXACT:
            found.append(op.operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    declared: set[str] = set()
    for op in found:
        type_ = op.results[0].type
        name = _EXACT[op.name] + ("f" if str(type_) == "f32" else "")
        if name not in declared:
            declared.add(name)
            with ir.InsertionPoint.at_block_begin(module.body):
                func.FuncOp(name, ([type_], [type_]), visibility="private")
        with ir.InsertionPoint(op):
            op.results[0].replace_all_uses_with(func.CallOp([type_], name, list(op.operands)).results[0])
        op.erase()


def _rewrite(module: Any) -> None:
    """What upstream does not lower for one thread without help.

    ``memref.copy`` of buffers with strides would call a C++ function of MLIR's own runtime: it becomes ``linalg.copy``.
    ``memref.generic_atomic_rmw`` of floats is not lowered: program instances run one after the other, so it becomes a
    load, its body and a store.
    """
    from mlir import ir
    from mlir.dialects import linalg, memref

    found: list[Any] = []

    def visit(op: Any) -> Any:
        if op.name in ("memref.copy", "memref.generic_atomic_rmw"):
            found.append(op.operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    for op in found:
        with ir.InsertionPoint(op):
            if op.name == "memref.copy":
                linalg.copy(op.operands[0], outs=[op.operands[1]])
            else:
                place, *indices = op.operands
                current = memref.LoadOp(place, indices).result
                body = op.regions[0].blocks[0]
                body.arguments[0].replace_all_uses_with(current)
                *inner, last = (one.operation for one in body.operations)
                for one in inner:
                    one.move_before(op)
                memref.StoreOp(last.operands[0], place, indices)
                op.results[0].replace_all_uses_with(current)
        op.erase()
