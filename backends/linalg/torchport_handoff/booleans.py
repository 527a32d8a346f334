"""Booleans in memory: upstream's lowering to LLVM stores no single bits, so buffers of them become buffers of bytes."""

from __future__ import annotations

from typing import Any

__all__ = ["store_bytes"]


def store_bytes(module: Any) -> None:
    """Change memrefs of i1 to memrefs of i8 in a module whose operations on whole buffers are loops already."""
    from mlir import ir

    operations: list[Any] = []

    def visit(op: Any) -> Any:
        operations.append(op.operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    for op in operations:
        if op.name == "memref.global":
            _global(op)
        for value in (*op.results, *(a for region in op.regions for block in region for a in block.arguments)):
            if (type_ := _as_bytes(value.type)) is not None:
                value.set_type(type_)
    for op in operations:
        if op.name == "memref.load" and str(op.results[0].type) == "i1":
            _load(op)
        elif op.name == "memref.store" and str(op.operands[0].type) == "i1":
            _store(op)


def _as_bytes(type_: Any) -> Any:
    from mlir import ir

    if not isinstance(type_, ir.MemRefType) or str(type_.element_type) != "i1":
        return None
    return ir.MemRefType.get(type_.shape, ir.IntegerType.get_signless(8), type_.layout, type_.memory_space)


def _load(op: Any) -> None:
    from mlir import ir
    from mlir.dialects import arith, memref

    source, *indices = op.operands
    with ir.InsertionPoint(op):
        loaded = memref.LoadOp(source, indices).result
        op.results[0].replace_all_uses_with(arith.TruncIOp(ir.IntegerType.get_signless(1), loaded).result)
    op.erase()


def _store(op: Any) -> None:
    from mlir import ir
    from mlir.dialects import arith, memref

    value, target, *indices = op.operands
    with ir.InsertionPoint(op):
        memref.StoreOp(arith.ExtUIOp(ir.IntegerType.get_signless(8), value).result, target, indices)
    op.erase()


def _global(op: Any) -> None:
    import numpy
    from mlir import ir

    type_ = _as_bytes(ir.TypeAttr(op.attributes["type"]).value)
    if type_ is None:
        return
    held = ir.DenseElementsAttr(op.attributes["initial_value"])
    bits = numpy.array([bool(value) for value in ir.DenseIntElementsAttr(held)], dtype=numpy.int8)
    op.attributes["type"] = ir.TypeAttr.get(type_)
    op.attributes["initial_value"] = ir.DenseElementsAttr.get(bits.reshape(type_.shape))
