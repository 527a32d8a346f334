"""Operations on single elements, written in ``arith`` and ``math``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_linalg.analysis.forms import owner
from torchport_linalg.floats import convert, to_integer
from torchport_linalg.functions import extern
from torchport_linalg.text import Value, Writer

__all__ = ["SCALARS", "element_of", "width"]

Rule = Callable[[Writer, Any, Sequence[Value]], Sequence[Value]]

_INT = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")
_FLOAT = ("false", "oeq", "ogt", "oge", "olt", "ole", "one", "ord",
          "ueq", "ugt", "uge", "ult", "ule", "une", "uno", "true")  # fmt: skip


def element_of(type_: Any) -> str:
    """The element type of a tensor, a scalar type itself, as text."""
    return str(type_.element_type if isinstance(type_, ir.RankedTensorType) else type_)


def width(element: str) -> int:
    """Bits of an integer or floating-point type."""
    found = re.match(r"b?[if](\d+)", element)
    if found is None:
        raise UnsupportedOperation(element, "the width of this type is not known")
    return int(found.group(1))


_SIGNS: Mapping[str, tuple[str, str]] = MappingProxyType({"math.absf": ("andi", "127"), "arith.negf": ("xori", "-128")})


def _same(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
    """Operands and result have one type; floats of 8 bits are computed with in f32."""
    if (narrow := args[0].element).startswith("f8"):
        if op.name in _SIGNS and not narrow.endswith("FNUZ"):  # whose only NaN is the sign alone
            word, mask = _SIGNS[op.name]
            bits = w.value("i8", f"arith.bitcast {args[0].name} : {narrow} to i8")
            made = w.value("i8", f"arith.{word} {bits.name}, {w.constant(mask, 'i8').name} : i8")
            return [w.value(narrow, f"arith.bitcast {made.name} : i8 to {narrow}")]
        if op.name.startswith(("arith.max", "arith.min")):
            raise UnsupportedOperation(op.name, "floats of 8 bits would lose their infinities")
        return [convert(w, _same(w, op, [convert(w, a, "f32") for a in args])[0], narrow)]
    names = ", ".join(a.name for a in args)
    return [w.value(args[0].element, f"{op.name} {names} : {args[0].element}")]


def _predicate(words: Sequence[str]) -> Rule:
    def rule(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
        word = words[int(ir.IntegerAttr(op.attributes["predicate"]).value)]
        if args[0].element.startswith("f8"):
            args = [convert(w, a, "f32") for a in args]
        return [w.value("i1", f"{op.name} {word}, {args[0].name}, {args[1].name} : {args[0].element}")]

    return rule


def _cast(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
    to = element_of(op.results[0].type)
    return [w.value(to, f"{op.name} {args[0].name} : {args[0].element} to {to}")]


def _float_to_float(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
    if "roundingmode" in op.attributes:
        raise UnsupportedOperation(op.name, "only rounding to the nearest is written")
    rounding = str(ir.StringAttr(op.attributes["rounding"]).value) if "rounding" in op.attributes else "rtne"
    return [convert(w, args[0], element_of(op.results[0].type), rounding)]


def _float_to_integer(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
    return [to_integer(w, args[0], element_of(op.results[0].type), signed=op.name == "arith.fptosi")]


def _select(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
    names = ", ".join(a.name for a in args)
    return [w.value(args[1].element, f"arith.select {names} : {args[1].element}")]


def _divide(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
    """Division that is defined for every divisor: lanes that a mask leaves out may divide by 0."""
    dividend, divisor = args
    element = divisor.element
    if not _harmless(op.operands[1]):
        zero, one = w.constant("0", element), w.constant("1", element)
        bad = w.value("i1", f"arith.cmpi eq, {divisor.name}, {zero.name} : {element}")
        if op.name in ("arith.divsi", "arith.remsi"):
            least = w.constant(str(-(1 << (width(element) - 1))), element)
            minus = w.constant("-1", element)
            low = w.value("i1", f"arith.cmpi eq, {dividend.name}, {least.name} : {element}")
            negative = w.value("i1", f"arith.cmpi eq, {divisor.name}, {minus.name} : {element}")
            both = w.value("i1", f"arith.andi {low.name}, {negative.name} : i1")
            bad = w.value("i1", f"arith.ori {bad.name}, {both.name} : i1")
        divisor = w.value(element, f"arith.select {bad.name}, {one.name}, {divisor.name} : {element}")
    return [w.value(element, f"{op.name} {dividend.name}, {divisor.name} : {element}")]


def _harmless(value: Any) -> bool:
    """Whether a divisor is a constant that is neither 0 nor -1."""
    op = owner(value)
    while op is not None and op.name in ("tt.splat", "tt.broadcast", "tt.expand_dims"):
        op = owner(op.operands[0])
    if op is None or op.name != "arith.constant":
        return False
    held = op.attributes["value"]
    if isinstance(held, ir.DenseElementsAttr):
        if not held.is_splat:
            return False
        held = held.get_splat_value()
    return int(ir.IntegerAttr(held).value) not in (0, -1)


def _extended(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
    e = args[0].element
    return w.values([(e, None), (e, None)], f"{op.name} {args[0].name}, {args[1].name} : {e}")


def _mulhiui(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
    e = args[0].element
    return [w.values([(e, None)] * 2, f"arith.mului_extended {args[0].name}, {args[1].name} : {e}")[1]]


def _named(name: str) -> Rule:
    def rule(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
        return [w.value(args[0].element, f"{name} {', '.join(a.name for a in args)} : {args[0].element}")]

    return rule


def _clamp(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
    value, low, high = args
    nan = ir.StringAttr(op.attributes["propagate_nan"]).value if "propagate_nan" in op.attributes else "none"
    most, least = ("maximumf", "minimumf") if nan == "all" else ("maxnumf", "minnumf")
    e = value.element
    raised = w.value(e, f"arith.{most} {value.name}, {low.name} : {e}")
    return [w.value(e, f"arith.{least} {raised.name}, {high.name} : {e}")]


def _bitcast(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
    to = element_of(op.results[0].type)
    if args[0].element == to:
        return [args[0]]
    return [w.value(to, f"arith.bitcast {args[0].name} : {args[0].element} to {to}")]


_ARITH = (
    "addi subi muli andi ori xori shli shrsi shrui maxsi minsi maxui minui "
    "addf subf mulf divf remf maximumf minimumf maxnumf minnumf negf"
)
_MATH = (
    "absf absi acos acosh asin asinh atan atanh atan2 cbrt ceil copysign cos cosh ctlz ctpop cttz erf erfc exp exp2 "
    "expm1 floor fma log log10 log1p log2 powf round roundeven rsqrt sin sinh sqrt tan tanh trunc"
)
SCALARS: Mapping[str, Rule] = MappingProxyType(
    {
        **{f"arith.{name}": _same for name in _ARITH.split()},
        **{f"math.{name}": _same for name in _MATH.split()},
        **dict.fromkeys(("arith.divsi", "arith.divui", "arith.remsi", "arith.remui"), _divide),
        **{f"arith.{name}": _cast for name in "extsi extui trunci sitofp uitofp index_cast index_castui".split()},
        **dict.fromkeys(("arith.mulsi_extended", "arith.mului_extended"), _extended),
        **dict.fromkeys(("arith.extf", "arith.truncf", "tt.fp_to_fp"), _float_to_float),
        **dict.fromkeys(("arith.fptosi", "arith.fptoui"), _float_to_integer),
        "arith.cmpi": _predicate(_INT),
        "arith.cmpf": _predicate(_FLOAT),
        "arith.select": _select,
        "arith.bitcast": _bitcast,
        "tt.bitcast": _bitcast,
        "tt.mulhiui": _mulhiui,
        "tt.precise_sqrt": _named("math.sqrt"),
        "tt.precise_divf": _named("arith.divf"),
        "tt.clampf": _clamp,
        "tt.extern_elementwise": extern,
    }
)
"""What writes the operations that compute each element of their result from those of their operands."""
