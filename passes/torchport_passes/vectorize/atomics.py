"""Atomic read-modify-write operations of a nest, lane by lane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlir import ir
from mlir.dialects import arith, llvm, scf, vector

from torchport.errors import UnsupportedOperation
from torchport_passes.analysis.strides import Coords
from torchport_passes.ir.build import byte_width, if_else, integer_type, masked_load, plain_load, zero_of
from torchport_passes.ir.ops import element_type
from torchport_passes.vectorize.pointers import (
    address_of,
    byte_stride,
    first_pointer,
    lane_pointers,
    mask_of,
    varying_pointers,
)

if TYPE_CHECKING:
    from torchport_passes.vectorize.lane_values import Lanes, Level

__all__ = ["atomic", "atomic_scalar", "guarded", "needs_order"]

# llvm.atomicrmw kinds for integers (AtomicBinOp in MLIR's LLVM dialect).
_INTEGER = {"exch": 0, "add": 1, "and": 3, "or": 5, "xor": 6, "max": 7, "min": 8, "umax": 9, "umin": 10}
_SEQUENTIALLY_CONSISTENT = 7


def needs_order(op: Any) -> bool:
    """Whether the result depends on the order of program instances: floating-point sums do."""

    return op.name == "tt.atomic_rmw" and isinstance(element_type(op.operands[1].type), ir.FloatType)


def _kind(op: Any) -> str:
    return str(ir.StringAttr(op.attributes["rmw"]).value)


def _combined(kind: str, old: Any, value: Any) -> Any:
    """The new value of a floating-point read-modify-write, as Triton defines it."""

    if kind == "fadd":
        return arith.AddFOp(old, value).result
    if kind in ("max", "fmax"):
        return arith.MaxNumFOp(old, value).result
    if kind in ("min", "fmin"):
        return arith.MinNumFOp(old, value).result
    if kind == "exch":
        return value
    raise UnsupportedOperation("tt.atomic_rmw", f"{kind} on floating-point values")


def atomic_scalar(op: Any, pointer: Any, operands: list[Any]) -> Any:
    """One atomic on scalars at the current insertion point; returns the old value.

    ``operands``: value for ``atomic_rmw``; compare, value for ``atomic_cas``. Floating-point sums are plain memory
    operations: kernels that hold them run their program instances in order on one thread (``tp_serial``), which makes
    their result the same in every run.
    """

    value = operands[-1]
    type_ = value.type
    bytes_ = byte_width(type_)
    if op.name == "tt.atomic_cas":
        bits = integer_type(8 * bytes_)
        as_bits = [v if v.type == bits else arith.BitcastOp(bits, v).result for v in operands]
        pair = ir.Operation.create(
            "llvm.cmpxchg", [ir.Type.parse(f"!llvm.struct<({bits}, i1)>")], [pointer, *as_bits],
            {"success_ordering": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), _SEQUENTIALLY_CONSISTENT),
             "failure_ordering": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), _SEQUENTIALLY_CONSISTENT)},
        ).results[0]  # fmt: skip
        old = llvm.ExtractValueOp(bits, pair, ir.DenseI64ArrayAttr.get([0])).result
        return old if bits == type_ else arith.BitcastOp(type_, old).result
    kind = _kind(op)
    if isinstance(type_, ir.FloatType):
        old = plain_load(type_, pointer, bytes_)
        llvm.StoreOp(_combined(kind, old, value), pointer, alignment=bytes_)
        return old
    if kind not in _INTEGER:
        raise UnsupportedOperation("tt.atomic_rmw", f"{kind} on {type_}")
    i64 = ir.IntegerType.get_signless(64)
    return ir.Operation.create(
        "llvm.atomicrmw", [type_], [pointer, value],
        {"bin_op": ir.IntegerAttr.get(i64, _INTEGER[kind]),
         "ordering": ir.IntegerAttr.get(i64, _SEQUENTIALLY_CONSISTENT)},
    ).results[0]  # fmt: skip


def _mask_operand(op: Any) -> Any | None:
    count = 2 if op.name == "tt.atomic_rmw" else 3
    return op.operands[count] if len(op.operands) > count else None


def atomic(lanes: Lanes, op: Any, coords: Coords, level: Level) -> None:
    """An atomic anchor; its old values are remembered as the value of its result."""

    values = list(op.operands)[1 : 2 if op.name == "tt.atomic_rmw" else 3]
    kind, condition = mask_of(lanes, _mask_operand(op), coords)
    address = address_of(lanes, op.operands[0], coords)
    result_type = element_type(op.results[0].type)
    used = any(True for _ in op.results[0].uses)
    if lanes.axis.dim not in coords:
        operands = [lanes.scalar(v, coords) for v in values]
        pointer = first_pointer(lanes, address, level)
        with level.point:
            old = guarded(kind, condition, result_type, lambda: atomic_scalar(op, pointer, operands))
        level.memo[op.results[0], coords, "scalar"] = old
        return
    count = lanes.axis.lanes
    operands = [lanes.vector(v, coords) for v in values]
    wanted = operands[-1].type
    bytes_ = byte_width(result_type)
    if byte_stride(lanes, address) == bytes_ and needs_order(op) and kind in ("all", "vector"):
        # neighbouring lanes, one thread: the lanes' addresses differ, so a vector load and store do
        pointer = first_pointer(lanes, address, level)
        with level.point:
            attributes = {"alignment": ir.IntegerAttr.get(integer_type(32), bytes_)}
            if kind == "all":
                old = plain_load(wanted, pointer, bytes_)
                llvm.StoreOp(_combined(_kind(op), old, operands[0]), pointer, alignment=bytes_)
            else:
                old = masked_load(wanted, pointer, condition, zero_of(wanted))
                new = _combined(_kind(op), old, operands[0])
                ir.Operation.create("llvm.intr.masked.store", [], [new, pointer, condition], attributes)
        level.memo[op.results[0], coords, "vector"] = old
        return
    if byte_stride(lanes, address) == 0:
        pointers = lane_pointers(lanes, address, level)
    else:
        pointers = varying_pointers(lanes, address, level)
    with level.point:
        index = ir.IndexType.get()
        zero, one, end = (arith.ConstantOp(index, n).result for n in (0, 1, count))
        loop = scf.ForOp(zero, end, one, [zero_of(wanted)] if used else [])
        with ir.InsertionPoint(loop.body):
            lane = loop.induction_variable
            pointer = vector.ExtractOp(pointers, [lane], [_DYNAMIC_POSITION]).result
            lane_values = [vector.ExtractOp(v, [lane], [_DYNAMIC_POSITION]).result for v in operands]
            lane_condition = condition
            if kind == "vector":
                lane_condition = vector.ExtractOp(condition, [lane], [_DYNAMIC_POSITION]).result
            old = guarded(kind, lane_condition, result_type, lambda: atomic_scalar(op, pointer, lane_values))
            yielded = []
            if used:
                yielded = [vector.InsertOp(old, loop.inner_iter_args[0], [lane], [_DYNAMIC_POSITION]).result]
            scf.YieldOp(yielded)
    if used:
        level.memo[op.results[0], coords, "vector"] = loop.results[0]


_DYNAMIC_POSITION = -(1 << 63)


def guarded(kind: str, condition: Any, type_: Any, emit: Any) -> Any:
    """``emit()`` where the mask holds; zero elsewhere."""
    if kind == "none":
        return zero_of(type_)
    if kind == "all":
        return emit()
    return if_else(condition, type_, emit, lambda: zero_of(type_))
