"""Writes scalar operations as WGSL expressions.

Arithmetic on floats is by functions that hide their results from the optimiser: WGSL allows it to reassociate, and
Mesa's does (``(x + y) - y`` becomes ``x``, ``x - x`` 0). NaN is found by its bits: WGSL allows compilers to assume that
there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_simt.wgsl.types import WIDE, bits_of, signed, suffix, wtype

__all__ = ["expression"]

Expression = Callable[[Any, list[str]], str]


def expression(op: Any, args: list[str]) -> str | None:
    """The WGSL expression of ``op``, which has one result; None if it is not an expression."""
    found = _EXPRESSIONS.get(op.name)
    return None if found is None else found(op, args)


def _type(op: Any) -> Any:
    return op.results[0].type


def _is_wide(type_: Any) -> bool:
    return str(type_) in WIDE


def _narrowed(type_: Any, text: str) -> str:
    """``text``, a u32, with the bits beyond the type's width cleared."""
    bits = bits_of(type_)
    return f"({text} & {(1 << bits) - 1}u)" if bits < 32 else text


def _integer(symbol: str, name: str, boolean: str) -> Expression:
    """An operation whose low bits depend on the operands' low bits only."""

    def emit(op: Any, args: list[str]) -> str:
        type_ = _type(op)
        if _is_wide(type_):
            return f"tp_{name}_u64({args[0]}, {args[1]})"
        if str(type_) == "i1":
            return f"({args[0]} {boolean} {args[1]})"
        text = f"({args[0]} {symbol} {args[1]})"
        return text if symbol in "&|^" else _narrowed(type_, text)

    return emit


def _divide(name: str, is_signed: bool) -> Expression:
    def emit(op: Any, args: list[str]) -> str:
        type_ = _type(op)
        if _is_wide(type_):
            return f"tp_{name}_u64({args[0]}, {args[1]})"
        if is_signed:
            return _narrowed(type_, f"tp_{name}_u32({', '.join(signed(type_, arg) for arg in args)})")
        return f"tp_{name}_u32({args[0]}, {args[1]})"

    return emit


def _shift(name: str) -> Expression:
    """Shifts; an amount of at least the width gives 0."""

    def emit(op: Any, args: list[str]) -> str:
        type_ = _type(op)
        if _is_wide(type_):
            return f"tp_{name}_u64({args[0]}, tp_low({args[1]}))"
        text = f"tp_{name}_u32({args[0]}, {args[1]}, {bits_of(type_)}u)"
        return _narrowed(type_, text)

    return emit


def _shift_signed(op: Any, args: list[str]) -> str:
    type_ = _type(op)
    if _is_wide(type_):
        return f"tp_shrs_u64({args[0]}, tp_low({args[1]}))"
    return _narrowed(type_, f"tp_shrs_u32({signed(type_, args[0])}, {args[1]})")


def _less(type_: Any, a: str, b: str, is_signed: bool) -> str:
    """Whether one integer is below another."""
    if _is_wide(type_):
        return f"tp_{'s' if is_signed else 'u'}less_u64({a}, {b})"
    if is_signed:
        a, b = signed(type_, a), signed(type_, b)
    elif str(type_) == "i1":
        a, b = f"u32({a})", f"u32({b})"
    return f"({a} < {b})"


def _extreme(largest: bool, is_signed: bool) -> Expression:
    def emit(op: Any, args: list[str]) -> str:
        a, b = args
        below = _less(_type(op), b, a, is_signed) if largest else _less(_type(op), a, b, is_signed)
        return f"select({b}, {a}, {below})"

    return emit


def _compare(op: Any, args: list[str]) -> str:
    """arith.cmpi's predicates: eq ne slt sle sgt sge ult ule ugt uge."""
    predicate = ir.IntegerAttr(op.attributes["predicate"]).value
    type_ = op.operands[0].type
    a, b = args
    if predicate < 2:
        if _is_wide(type_):
            return f"{'!' if predicate else ''}tp_equal_u64({a}, {b})"
        return f"({a} {'!=' if predicate else '=='} {b})"
    is_signed, kind = predicate < 6, (predicate - 2) % 4
    if kind in (1, 2):  # a <= b is not b < a
        a, b = b, a
    return f"{'!' if kind in (1, 3) else ''}{_less(type_, a, b, is_signed)}"


_FLOAT_COMPARISONS = (  # arith.cmpf's predicates, in MLIR's order; not the opposite, as an optimiser would turn it back
    "false", "({a} == {b})", "({a} > {b})", "({a} >= {b})", "({a} < {b})", "({a} <= {b})", "({a} < {b} || {a} > {b})",
    "!{u}", "({u} || {a} == {b})", "({u} || {a} > {b})", "({u} || {a} >= {b})", "({u} || {a} < {b})",
    "({u} || {a} <= {b})", "({u} || !({a} == {b}))", "{u}", "true",
)  # fmt: skip


def _compare_float(op: Any, args: list[str]) -> str:
    kind = suffix(op.operands[0].type)
    text = _FLOAT_COMPARISONS[ir.IntegerAttr(op.attributes["predicate"]).value]
    unordered = f"tp_nan_{kind}({args[0]})" if args[0] == args[1] else f"tp_unordered_{kind}({args[0]}, {args[1]})"
    return text.format(a=args[0], b=args[1], u=unordered)


def _float(name: str) -> Expression:
    def emit(op: Any, args: list[str]) -> str:
        kind = suffix(_type(op))
        a, b = args
        return f"tp_{name}_{kind}({a}, {f'tp_hide_{kind}({b})' if a == b else b})"

    return emit


def _named(name: str) -> Expression:
    """A function of the preamble, by its name and the type."""
    return lambda op, args: f"tp_{name}_{suffix(op.operands[0].type)}({', '.join(args)})"


def _fma(op: Any, args: list[str]) -> str:
    """One rounding, or two where the function that it is part of was found to be the same."""
    name = "fma_through" if "tp.through_f64" in op.attributes else "fma"
    return f"tp_{name}_{suffix(op.operands[0].type)}({', '.join(args)})"


def _count(name: str) -> Expression:
    """Leading zeros, trailing zeros or ones; of narrow integers, those of their own bits."""

    def emit(op: Any, args: list[str]) -> str:
        type_ = op.operands[0].type
        text = f"tp_{name}_{suffix(type_)}({args[0]})"
        if _is_wide(type_) or bits_of(type_) == 32 or name == "popcount":
            return text
        if str(type_) == "i1":
            raise UnsupportedOperation(op.name, "zeros of a boolean")
        width = bits_of(type_)
        return f"({text} - {32 - width}u)" if name == "clz" else f"min({text}, {width}u)"

    return emit


def _extend_float(op: Any, args: list[str]) -> str:
    source, target = str(op.operands[0].type), str(_type(op))
    wide = f"tp_{source}_to_f32({args[0]})" if source in ("f16", "bf16") else args[0]
    return wide if target == "f32" else f"f64({wide})"


def _truncate_float(op: Any, args: list[str]) -> str:
    source, target = str(op.operands[0].type), str(_type(op))
    if target == "f32":
        return f"f32({args[0]})"
    if source != "f32":
        raise UnsupportedOperation(op.name, f"{source} to {target} in one step")
    return f"tp_f32_to_{target}({args[0]})"


def _bitcast(op: Any, args: list[str]) -> str:
    source, target = wtype(op.operands[0].type), wtype(_type(op))
    if source == target:
        return args[0]
    if {source, target} == {"f32", "u32"}:
        return f"bitcast<{target}>({args[0]})"
    if {source, target} == {"f64", "tp_u64"}:
        return f"tp_as_{suffix(_type(op))}({args[0]})"
    raise UnsupportedOperation(op.name, f"{op.operands[0].type} as {_type(op)}")


def _resize(is_signed: bool) -> Expression:
    """An integer, extended or truncated."""

    def emit(op: Any, args: list[str]) -> str:
        source, target = op.operands[0].type, _type(op)
        (arg,) = args
        if _is_wide(source):
            return arg if _is_wide(target) else _as_boolean(target, f"tp_low({arg})")
        if _is_wide(target):
            if is_signed:
                return f"tp_wide_signed({signed(source, arg)})"
            return f"tp_u64_of({_word(source, arg)}, 0u)"
        if bits_of(target) > bits_of(source) and is_signed and bits_of(source) < 32:
            return _narrowed(target, f"bitcast<u32>({signed(source, arg)})")
        return _as_boolean(target, _word(source, arg))

    return emit


def _word(type_: Any, arg: str) -> str:
    return f"u32({arg})" if str(type_) == "i1" else arg


def _as_boolean(type_: Any, word: str) -> str:
    return f"(({word} & 1u) != 0u)" if str(type_) == "i1" else _narrowed(type_, word)


def _from_integer(is_signed: bool) -> Expression:
    """Integers are converted to 16-bit floats through f32, as in eager torch."""

    def emit(op: Any, args: list[str]) -> str:
        source, target = op.operands[0].type, str(_type(op))
        held = "f64" if target == "f64" else "f32"
        if _is_wide(source):
            text = f"tp_{'s' if is_signed else 'u'}64_to_{held}({args[0]})"
        else:
            text = f"{held}({signed(source, args[0]) if is_signed else _word(source, args[0])})"
        return f"tp_f32_to_{target}({text})" if target in ("f16", "bf16") else text

    return emit


def _to_integer(is_signed: bool) -> Expression:
    def emit(op: Any, args: list[str]) -> str:
        source, type_ = str(op.operands[0].type), _type(op)
        number = f"tp_{source}_to_f32({args[0]})" if source in ("f16", "bf16") else args[0]
        held = "f64" if source == "f64" else "f32"
        sign = "s" if is_signed else "u"
        if _is_wide(type_):
            return f"tp_{held}_to_{sign}64({number})"
        word = f"bitcast<u32>(i32({number}))" if is_signed else f"u32({number})"
        return _as_boolean(type_, word)

    return emit


def _absolute(op: Any, args: list[str]) -> str:
    type_ = _type(op)
    if _is_wide(type_):
        return f"tp_abs_u64({args[0]})"
    return _narrowed(type_, f"bitcast<u32>(abs({signed(type_, args[0])}))")


def _address(op: Any, args: list[str]) -> str:
    """Modulo 2^32: buffers are smaller, so the low bits of an index of 64 bits are enough."""
    size = ir.IntegerAttr(op.attributes["elem_bytes"]).value
    type_ = op.operands[1].type
    index = f"tp_low({args[1]})" if _is_wide(type_) else args[1]
    if not _is_wide(type_) and bits_of(type_) < 32:
        index = f"bitcast<u32>({signed(type_, args[1])})"
    return f"({args[0]} + {index})" if size == 1 else f"({args[0]} + {index} * {size}u)"


def _program(builtin: str, along_x: str) -> Expression:
    """Of the first axis, a launch may be one of several, which start at other groups."""

    def emit(op: Any, args: list[str]) -> str:
        axis = ir.IntegerAttr(op.attributes["axis"]).value
        return f"{builtin}.{'xyz'[axis]}" if axis else along_x

    return emit


def _refuse_pointer(op: Any, args: list[str]) -> str:
    raise UnsupportedOperation(
        op.name, "WebGPU's buffers have no addresses; pass the tensor as an argument", location=str(op.location)
    )


_EXPRESSIONS: dict[str, Expression] = {
    "arith.addi": _integer("+", "add", "!="), "arith.subi": _integer("-", "sub", "!="),
    "arith.muli": _integer("*", "mul", "&"), "arith.andi": _integer("&", "and", "&"),
    "arith.ori": _integer("|", "or", "|"), "arith.xori": _integer("^", "xor", "!="),
    "arith.divui": _divide("udiv", False), "arith.remui": _divide("urem", False),
    "arith.divsi": _divide("sdiv", True), "arith.remsi": _divide("srem", True),
    "arith.shli": _shift("shl"), "arith.shrui": _shift("shr"), "arith.shrsi": _shift_signed,
    "arith.maxsi": _extreme(True, True), "arith.minsi": _extreme(False, True), "arith.maxui": _extreme(True, False),
    "arith.minui": _extreme(False, False), "arith.cmpi": _compare, "arith.cmpf": _compare_float,
    "arith.select": lambda op, args: f"select({args[2]}, {args[1]}, {args[0]})",
    "arith.addf": _float("add"), "arith.subf": _float("sub"), "arith.mulf": _float("mul"), "arith.divf": _float("div"),
    "arith.negf": _named("neg"), "arith.maximumf": _named("maximum"), "arith.minimumf": _named("minimum"),
    "arith.maxnumf": _named("maxnum"), "arith.minnumf": _named("minnum"),
    "arith.extf": _extend_float, "arith.truncf": _truncate_float, "arith.bitcast": _bitcast,
    "arith.extsi": _resize(True), "arith.extui": _resize(False), "arith.trunci": _resize(False),
    "arith.index_cast": _resize(True), "arith.index_castui": _resize(False),
    "arith.sitofp": _from_integer(True), "arith.uitofp": _from_integer(False), "arith.fptosi": _to_integer(True),
    "arith.fptoui": _to_integer(False),
    "math.fma": _fma, "math.absf": _named("fabs"), "math.ceil": _named("ceil"), "math.floor": _named("floor"),
    "math.trunc": _named("trunc"), "math.round": _named("round"), "math.roundeven": _named("rint"),
    "math.sqrt": _named("sqrt"), "math.copysign": _named("copysign"), "math.ctlz": _count("clz"),
    "math.ctpop": _count("popcount"), "math.cttz": _count("ctz"), "math.absi": _absolute,
    "math.isnan": _named("nan"), "math.isinf": _named("infinite"), "math.isfinite": _named("finite"),
    "tt.addptr": _address,
    "tt.get_program_id": _program("tp_group", "(tp_group.x + tp_args.base)"),
    "tt.get_num_programs": _program("tp_groups", "tp_args.groups"),
    "llvm.ptrtoint": _refuse_pointer, "llvm.inttoptr": _refuse_pointer, "llvm.mlir.zero": lambda op, args: "0u",
    "tp.lane": lambda op, args: "tp_lane",
}  # fmt: skip
