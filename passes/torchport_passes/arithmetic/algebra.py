"""Maps every float of a kernel to a payload, an element of a finite field (docs/numerics/equivalence.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport.arithmetic.payload import field
from torchport.arithmetic.payload.constants import payload_of
from torchport.errors import UnsupportedOperation
from torchport_passes.arithmetic.moved_bits import MOVED, widen_moved_bits
from torchport_passes.arithmetic.payload_ops import (
    TESTS,
    comparison,
    copysign,
    extern,
    filled,
    from_integer,
    from_signed,
    function,
    to_integer,
)
from torchport_passes.arithmetic.promote import restore_extremes
from torchport_passes.arithmetic.types import retype, retype_function, shaped
from torchport_passes.ir.atomics import PAYLOAD, kind_of
from torchport_passes.ir.ops import element_type, matching, text_attribute
from torchport_passes.ir.traits import CONVERSIONS
from torchport_passes.ir.types import Module, Op, Type, Value

__all__ = ["Algebra"]

_FLOATS = re.compile(r"^(\*?)(?:fp\d\w*|bf16|f8\w+)$")
_MANTISSAS = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8, "f8E5M2": 3, "f8E5M2FNUZ": 3}
_MANTISSA = 4  # of other 8-bit formats


@dataclass(frozen=True)
class Algebra:
    """Make every value, block argument, constant and pointee of a float type an i64 that holds a payload.

    Takes imported TTIR with pointees (``import_ttir(keep_pointees=True)``). Leaves imported TTIR without floats:
    operations on them are ``tt.extern_elementwise`` with symbols ``tp_payload_<function>_i64``, for which
    ``lower-math`` has functions. Dots are sums of products, conversions between floats are gone.

    Raises UnsupportedOperation for what has no algebra: bits of floats, scaled dots, pointers as pointers to other
    types.

    ``roundings``: a conversion to a narrower float is a hash of its operand and of the type, for ``keep-order``.
    """

    name: ClassVar[str] = "algebra"

    roundings: bool = False

    def signature(self, types: Sequence[str]) -> list[str]:
        """Triton's types of the arguments that the kernel takes then, from those that it took."""
        return [_FLOATS.sub(r"\1i64", type_) for type_ in types]

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            restore_extremes(module)
            widen_moved_bits(module)
            ops = [_FloatOp.of(op) for op in matching(module, "builtin.module".__ne__)]
            for float_op in ops:
                retype(float_op.op, _payloads)
            for float_op in ops:
                with ir.InsertionPoint(float_op.op):
                    narrowed = _narrowed(float_op) if self.roundings else None
                    replacement = _replacement(float_op) if narrowed is None else narrowed
                if replacement is not None:
                    float_op.op.results[0].replace_all_uses_with(replacement)
                    float_op.op.erase()


@dataclass(frozen=True)
class _FloatOp:
    """An operation, and the float type that each operand and result had before; None for other types."""

    op: Op
    operands: tuple[Type | None, ...]
    results: tuple[Type | None, ...]

    @classmethod
    def of(cls, op: Op) -> _FloatOp:
        return cls(op, *(tuple(_float(v.type) for v in values) for values in (op.operands, op.results)))


def _float(type_: Type) -> Type | None:
    element = element_type(type_)
    return element if isinstance(element, ir.FloatType) else None


def _payloads(type_: Type) -> Type:
    """The type that values of ``type_`` have as payloads."""
    return type_ if _float(type_) is None else shaped(type_, _i64())


def _i64() -> Type:
    return ir.IntegerType.get_signless(64)


def _replacement(float_op: _FloatOp) -> Value | None:
    """The value that takes the place of an operation's result; None where the operation stays."""
    op = float_op.op
    if (handler := _HANDLERS.get(op.name)) is not None:
        return handler(float_op)
    floats = any(type_ is not None for type_ in (*float_op.operands, *float_op.results))
    if not floats or op.name in _MOVES or op.name.startswith("scf."):
        return None
    if op.name in _FUNCTIONS:
        return function(_FUNCTIONS[op.name], *op.operands)
    raise UnsupportedOperation(op.name, "it has no algebra", location=str(op.location))


def _signature(float_op: _FloatOp) -> None:
    retype_function(float_op.op, _payloads)


def _constant(float_op: _FloatOp) -> None:
    op, [format_] = float_op.op, float_op.results
    if format_ is None:
        return
    mantissa = _MANTISSAS.get(str(format_), _MANTISSA)

    def payload(number: float) -> ir.IntegerAttr:
        return ir.IntegerAttr.get(_i64(), payload_of(number, mantissa))

    type_, value = op.results[0].type, op.attributes["value"]
    if isinstance(value, ir.FloatAttr):
        op.attributes["value"] = payload(value.value)
    elif value.is_splat:
        op.attributes["value"] = ir.DenseElementsAttr.get_splat(
            type_, payload(ir.FloatAttr(value.get_splat_value()).value)
        )
    else:
        numbers = [payload(number) for number in ir.DenseFPElementsAttr(value)]
        op.attributes["value"] = ir.DenseElementsAttr.get(numbers, type_)


def _narrowed(float_op: _FloatOp) -> Value | None:
    """The hash of a conversion that rounds; None for other operations."""
    op = float_op.op
    if op.name not in CONVERSIONS:
        return None
    [source], [result] = float_op.operands, float_op.results
    if source is None or result is None or source.width <= result.width:
        return None
    return function("hash1", filled(op.operands[0].type, field.salt(f"to {result}")), op.operands[0])


def _pointer_step(float_op: _FloatOp) -> None:
    op = float_op.op
    if "pointee" not in op.attributes:
        raise UnsupportedOperation("tt.addptr", "algebra needs pointees, and this TTIR was imported without them")
    if isinstance(ir.TypeAttr(op.attributes["pointee"]).value, ir.FloatType):
        op.attributes["elem_bytes"] = ir.IntegerAttr.get(_i64(), 8)
    del op.attributes["pointee"]


def _identity(float_op: _FloatOp) -> Value:
    return float_op.op.operands[0]


def _bits(float_op: _FloatOp) -> Value | None:
    op, [source], [result] = float_op.op, float_op.operands, float_op.results
    if "pointees" in op.attributes:
        old, new = (ir.TypeAttr(a).value for a in ir.ArrayAttr(op.attributes["pointees"]))
        if old != new and any(isinstance(type_, ir.FloatType) for type_ in (old, new)):
            raise UnsupportedOperation("tt.bitcast", f"a pointer to {old} is used as one to {new}")
        del op.attributes["pointees"]
    if source is None and result is None:
        return None
    if source != result and MOVED not in op.attributes:
        raise UnsupportedOperation(op.name, "the bits of a float have no algebra", location=str(op.location))
    return op.operands[0]


def _clamp(float_op: _FloatOp) -> Value:
    op = float_op.op
    x, low, high = op.operands
    nan = "propagate_nan" in op.attributes and text_attribute(op, "propagate_nan") == "all"
    largest, least = ("maximum", "minimum") if nan else ("maxnum", "minnum")
    return function(least, function(largest, x, low), high)


def _integer_power(float_op: _FloatOp) -> Value:
    x, n = float_op.op.operands
    return function("pow", x, from_signed(n, x.type))


def _dot(float_op: _FloatOp) -> Value | None:
    """``c + sum over k of a[.., m, k] b[.., k, n]``."""
    if float_op.results[0] is None:
        return None
    a, b, c = float_op.op.operands
    *batch, m, n = c.type.shape
    k, rank = a.type.shape[-1], len(batch)
    whole = ir.RankedTensorType.get([*batch, m, k, n], _i64())

    def spread(x: Value, axis: int) -> Value:
        shape = list(x.type.shape)
        shape.insert(axis, 1)
        attributes = {"axis": ir.IntegerAttr.get(ir.IntegerType.get_signless(32), axis)}
        x = ir.Operation.create("tt.expand_dims", [ir.RankedTensorType.get(shape, _i64())], [x], attributes).results[0]
        return ir.Operation.create("tt.broadcast", [whole], [x]).results[0]

    products = function("mul", spread(a, rank + 2), spread(b, rank))
    attributes = {"axis": ir.IntegerAttr.get(ir.IntegerType.get_signless(32), rank + 1)}
    reduce = ir.Operation.create("tt.reduce", [c.type], [products], attributes, regions=1)
    block = reduce.regions[0].blocks.append(_i64(), _i64())
    with ir.InsertionPoint(block):
        ir.Operation.create("tt.reduce.return", [], [function("add", *block.arguments)])
    return function("add", reduce.results[0], c)


_ATOMICS = {"fadd": "add", "max": "maxnum", "fmax": "maxnum", "min": "minnum", "fmin": "minnum"}


def _atomic(float_op: _FloatOp) -> None:
    op = float_op.op
    if float_op.results[0] is None or kind_of(op) == "exch":
        return
    if kind_of(op) not in _ATOMICS:
        raise UnsupportedOperation(op.name, f"{kind_of(op)} on floats has no algebra")
    op.attributes["rmw"] = ir.StringAttr.get(PAYLOAD + _ATOMICS[kind_of(op)])


def _load(float_op: _FloatOp) -> None:
    if str(element_type(float_op.op.results[0].type)) == "!llvm.ptr":
        raise UnsupportedOperation("tt.load", "what pointers kept in memory point to is not known")


def _address(float_op: _FloatOp) -> None:
    raise UnsupportedOperation(float_op.op.name, "what addresses made of integers point to is not known")


def _test(test: Callable[[Value], Value]) -> Callable[[_FloatOp], Value]:
    return lambda float_op: test(float_op.op.operands[0])


def _extern(float_op: _FloatOp) -> Value | None:
    kinds = {type_ is not None for type_ in (*float_op.operands, *float_op.results)}
    return extern(float_op.op, floats=kinds == {True}) if True in kinds else None


_FUNCTIONS = {
    "arith.addf": "add", "arith.subf": "sub", "arith.mulf": "mul", "arith.divf": "div", "arith.negf": "neg",
    "arith.remf": "fmod", "arith.maximumf": "maximum", "arith.minimumf": "minimum", "arith.maxnumf": "maxnum",
    "arith.minnumf": "minnum", "tt.precise_divf": "div", "tt.precise_sqrt": "sqrt", "math.absf": "abs",
    "math.roundeven": "rint", "math.powf": "pow",
    **{f"math.{name}": name for name in (
        "acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh erf erfc exp exp2 expm1 floor fma log log10 log1p "
        "log2 round rsqrt sin sinh sqrt tan tanh trunc"
    ).split()},
}  # fmt: skip
_MOVES = frozenset(
    "arith.select func.return func.call tt.call tt.store tt.atomic_cas tt.broadcast tt.expand_dims tt.reshape tt.splat "
    "tt.trans tt.unsplat tt.cat tt.gather tt.join tt.split tt.reduce tt.reduce.return tt.scan tt.scan.return "
    "tt.map_elementwise tt.map_elementwise.return tt.print ub.poison cf.br cf.cond_br tt.return return".split()
)
"""Operations that move floats, and do not compute with them."""
_HANDLERS: dict[str, Callable[[_FloatOp], Value | None]] = {
    "func.func": _signature,
    "arith.constant": _constant,
    "arith.bitcast": _bits,
    "arith.cmpf": lambda float_op: comparison(float_op.op),
    "arith.sitofp": lambda float_op: from_integer(float_op.op, signed=True),
    "arith.uitofp": lambda float_op: from_integer(float_op.op, signed=False),
    "arith.fptosi": lambda float_op: to_integer(float_op.op),
    "arith.fptoui": lambda float_op: to_integer(float_op.op),
    "math.copysign": lambda float_op: copysign(*float_op.op.operands),
    "math.fpowi": _integer_power,
    "tt.addptr": _pointer_step,
    "tt.atomic_rmw": _atomic,
    "tt.bitcast": _bits,
    "tt.clampf": _clamp,
    "tt.dot": _dot,
    "tt.extern_elementwise": _extern,
    "tt.int_to_ptr": _address,
    "tt.load": _load,
    "tt.ptr_to_int": _address,
    **{f"math.{name}": _test(TESTS[name]) for name in ("isfinite", "isinf", "isnan")},
    **dict.fromkeys(CONVERSIONS, _identity),
}
