"""Emits scalar atomic operations, and says which of them need program instances to run in order."""

from __future__ import annotations

from collections.abc import Callable

from mlir import ir
from mlir.dialects import arith, llvm

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.build import byte_width, if_else, integer_type, plain_load, zero_of
from torchport_passes.ir.ops import element_type, text_attribute
from torchport_passes.ir.types import Op, Type, Value

__all__ = ["PAYLOAD", "atomic_scalar", "combined", "guarded", "kind_of", "needs_order"]

PAYLOAD = "payload_"
"""Kinds that begin so combine payloads by the function of that name (``torchport_passes.arithmetic.algebra``)."""

# llvm.atomicrmw kinds for integers (AtomicBinOp in MLIR's LLVM dialect).
_INTEGER = {"exch": 0, "add": 1, "and": 3, "or": 5, "xor": 6, "max": 7, "min": 8, "umax": 9, "umin": 10}
_SEQUENTIALLY_CONSISTENT = 7


def needs_order(op: Op) -> bool:
    """Whether the result depends on the order of program instances, as that of floating-point operations does."""
    if op.name != "tt.atomic_rmw":
        return False
    return isinstance(element_type(op.operands[1].type), ir.FloatType) or kind_of(op).startswith(PAYLOAD)


def kind_of(op: Op) -> str:
    """The operator of a ``tt.atomic_rmw``, as Triton spells it."""
    return text_attribute(op, "rmw")


def combined(kind: str, old: Value, value: Value) -> Value:
    """The new value of a floating-point read-modify-write, as Triton defines it, or of one on payloads."""
    if kind.startswith(PAYLOAD):
        attributes = {"symbol": ir.StringAttr.get(f"tp_{kind}_i64")}
        return ir.Operation.create("tp.extern", [value.type], [old, value], attributes).results[0]
    if kind == "fadd":
        return arith.AddFOp(old, value).result
    if kind in ("max", "fmax"):
        return arith.MaxNumFOp(old, value).result
    if kind in ("min", "fmin"):
        return arith.MinNumFOp(old, value).result
    if kind == "exch":
        return value
    raise UnsupportedOperation("tt.atomic_rmw", f"{kind} on floating-point values")


def atomic_scalar(op: Op, pointer: Value, operands: list[Value]) -> Value:
    """Emit one scalar atomic at the current insertion point; returns the old value.

    ``operands``: the value of ``atomic_rmw``; the expected and the new value of ``atomic_cas``. Floating-point
    operations are a plain load and store: kernels with them run their program instances in order on one thread, so
    that results are the same in every run.
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
    kind = kind_of(op)
    if needs_order(op):
        old = plain_load(type_, pointer, bytes_)
        llvm.StoreOp(combined(kind, old, value), pointer, alignment=bytes_)
        return old
    if kind not in _INTEGER:
        raise UnsupportedOperation("tt.atomic_rmw", f"{kind} on {type_}")
    i64 = ir.IntegerType.get_signless(64)
    return ir.Operation.create(
        "llvm.atomicrmw", [type_], [pointer, value],
        {"bin_op": ir.IntegerAttr.get(i64, _INTEGER[kind]),
         "ordering": ir.IntegerAttr.get(i64, _SEQUENTIALLY_CONSISTENT)},
    ).results[0]  # fmt: skip


def guarded(kind: str, condition: Value, type_: Type, emit: Callable[[], Value]) -> Value:
    """The value of ``emit()`` if the mask holds, else zero. ``kind``: "none", "all", or "scalar" with ``condition``."""
    if kind == "none":
        return zero_of(type_)
    if kind == "all":
        return emit()
    return if_else(condition, type_, emit, lambda: zero_of(type_))
