"""Matrix products: ``linalg.matmul`` and ``linalg.batch_matmul``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchport_linalg.floats import convert
from torchport_linalg.generic import elementwise
from torchport_linalg.kernel import Kernel
from torchport_linalg.scalars import width
from torchport_linalg.text import Value, Writer

__all__ = ["dot", "product"]

_TF32 = "-8192"  # keeps sign, exponent and 10 bits of the significand of an f32


def dot(x: Kernel, op: Any) -> None:
    """``tt.dot``: the sum is kept in f32 where operands and result are narrower, and rounded once."""
    left, right, sums = (x.get(v) for v in op.operands)
    precision = str(op.attributes["input_precision"]).strip('"')
    left, right = (_to(x, value, "f32") if value.element.startswith("f8") else value for value in (left, right))
    if precision == "tf32" and left.element == "f32":
        left, right = (_cut(x, value) for value in (left, right))
    result = sums.element
    if result in ("f16", "bf16"):
        sums = _to(x, sums, "f32")
    if left.element != right.element and left.element[0] != "i":
        wide = sums.element
        left, right = (value if width(value.element) == width(wide) else _to(x, value, wide) for value in (left, right))
    made = product(x, left, right, sums)
    x.set(op.results[0], made if result == made.element else _to(x, made, result))


def product(x: Kernel, left: Value, right: Value, sums: Value) -> Value:
    """``left @ right + sums``, of matrices or of batches of them."""
    name = "matmul" if len(sums.shape or ()) == 2 else "batch_matmul"
    text = (
        f"linalg.{name} ins({left.name}, {right.name} : {left.type}, {right.type}) "
        f"outs({sums.name} : {sums.type}) -> {sums.type}"
    )
    return x.w.value(sums.element, text, shape=sums.shape)


def _to(x: Kernel, value: Value, to: str) -> Value:
    return elementwise(x.w, [value], [to], lambda w, args: [convert(w, args[0], to)])[0]


def _cut(x: Kernel, value: Value) -> Value:
    """An f32 without the bits that tf32 does not have."""

    def body(w: Writer, args: Sequence[Value]) -> list[Value]:
        bits = w.value("i32", f"arith.bitcast {args[0].name} : f32 to i32")
        kept = w.value("i32", f"arith.andi {bits.name}, {w.constant(_TF32, 'i32').name} : i32")
        return [w.value("f32", f"arith.bitcast {kept.name} : i32 to f32")]

    return elementwise(x.w, [value], ["f32"], body)[0]
