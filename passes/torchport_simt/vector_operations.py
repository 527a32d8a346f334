"""Writes operations on vectors as C expressions, where the language's operators work on whole vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlir import ir
from torchport_passes.ir.ops import constant_splat, defining_op, int_attribute

from torchport_simt.operations import FLOAT_COMPARISONS, expression
from torchport_simt.types import constant, ctype

__all__ = ["element", "vector_expression"]

Expression = Callable[[Any, list[str]], str | None]


def vector_expression(op: Any, args: list[str]) -> str | None:
    """The C expression of ``op``, which has vectors and one result; None if it has no form."""
    found = _EXPRESSIONS.get(op.name)
    text = None if found is None else found(op, args)
    return text if text is not None else _each(op, args)


def element(name: str, type_: Any, lane: int) -> str:
    """One element of a value; a scalar is its own."""
    if not isinstance(type_, ir.VectorType):
        return name
    text = f"{name}.s{lane:x}"
    return f"({text} & 1)" if str(type_.element_type) == "i1" else text


@dataclass(frozen=True)
class _Value:
    type: Any


class _Element:
    """An operation on one element of each vector."""

    def __init__(self, op: Any) -> None:
        self.name, self.attributes, self.location = op.name, op.attributes, op.location
        self.operands = [_Value(_scalar(value.type)) for value in op.operands]
        self.results = [_Value(_scalar(value.type)) for value in op.results]


def _scalar(type_: Any) -> Any:
    return type_.element_type if isinstance(type_, ir.VectorType) else type_


def _each(op: Any, args: list[str]) -> str | None:
    """Element by element."""
    one, type_ = _Element(op), op.results[0].type
    texts = []
    for lane in range(type_.shape[0]):
        text = expression(one, [element(arg, v.type, lane) for arg, v in zip(args, op.operands, strict=True)])
        if text is None:
            return None
        texts.append(f"-({text})" if str(type_.element_type) == "i1" else text)
    return f"({ctype(type_)})({', '.join(texts)})"


def _kind(type_: Any) -> str:
    """``u32``, ``f32`` ... of a vector's elements; booleans are ``i32``."""
    kind = ctype(type_)[3:-1]
    return "i32" if kind == "bool" else kind


def _bits(type_: Any) -> str:
    return _kind(type_)[1:]


def _boolean(type_: Any) -> bool:
    return str(_scalar(type_)) == "i1"


def _result(op: Any) -> Any:
    return op.results[0].type


def _convert(kind: str, arg: str) -> str:
    return f"tp_convert_{kind}v({arg})"


def _as(kind: str, arg: str) -> str:
    return f"tp_as_{kind}v({arg})"


def _signed(type_: Any, arg: str) -> str:
    return arg if _boolean(type_) else _as(f"i{_bits(type_)}", arg)


def _infix(symbol: str, boolean: str | None = None) -> Expression:
    def emit(op: Any, args: list[str]) -> str | None:
        used = boolean if _boolean(_result(op)) else symbol
        return None if used is None else f"({args[0]} {used} {args[1]})"

    return emit


def _truth(type_: Any, text: str) -> str:
    """A comparison of vectors, whose elements are as wide as what is compared, as booleans."""
    return text if _bits(type_) == "32" else _convert("i32", text)


_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "<", "<=", ">", ">=")


def _compare(op: Any, args: list[str]) -> str | None:
    predicate, type_ = int_attribute(op, "predicate"), op.operands[0].type
    if _boolean(type_) and predicate > 1:
        return None
    a, b = (_signed(type_, arg) for arg in args) if 2 <= predicate <= 5 else args
    return _truth(type_, f"({a} {_COMPARISONS[predicate]} {b})")


def _compare_float(op: Any, args: list[str]) -> str | None:
    predicate, type_ = int_attribute(op, "predicate"), op.operands[0].type
    if predicate in (0, 15) or _kind(type_) not in ("f32", "f64"):
        return None
    return _truth(type_, f"({FLOAT_COMPARISONS[predicate].format(a=args[0], b=args[1])})")


def _select(op: Any, args: list[str]) -> str:
    condition, bits = args[0], _bits(_result(op))
    if isinstance(op.operands[0].type, ir.VectorType) and bits != "32":
        condition = _convert(f"i{bits}", condition)
    return f"({condition} ? {args[1]} : {args[2]})"


def _extreme(symbol: str, signed: bool) -> Expression:
    def emit(op: Any, args: list[str]) -> str | None:
        type_ = _result(op)
        if _boolean(type_):
            return None
        a, b = (_signed(type_, arg) for arg in args) if signed else args
        return f"(({a} {symbol} {b}) ? {args[0]} : {args[1]})"

    return emit


def _shift(symbol: str, signed: bool = False) -> Expression:
    """A shift by one constant less than the width."""

    def emit(op: Any, args: list[str]) -> str | None:
        type_ = _result(op)
        if not isinstance(op.operands[1].owner, (ir.Operation, ir.OpView)) or _boolean(type_):
            return None
        splat = constant_splat(defining_op(op.operands[1]))
        if splat is None:
            return None
        amount = int(ir.IntegerAttr(splat).value)
        if not 0 <= amount < int(_bits(type_)):
            return None
        kind = f"tp_{'i' if signed else 'u'}{_bits(type_)}"  # a wider scalar would widen the vector
        shifted = f"({_signed(type_, args[0]) if signed else args[0]} {symbol} ({kind}){amount})"
        return _as(_kind(type_), shifted) if signed else shifted

    return emit


def _extend(op: Any, args: list[str]) -> str:
    source = op.operands[0].type
    return _convert(_kind(_result(op)), f"({args[0]} & 1)" if _boolean(source) else args[0])


def _extend_signed(op: Any, args: list[str]) -> str:
    bits = _bits(_result(op))
    return _as(f"u{bits}", _convert(f"i{bits}", _signed(op.operands[0].type, args[0])))


def _truncate(op: Any, args: list[str]) -> str:
    if _boolean(_result(op)):
        one = f"({args[0]} & (tp_{_kind(op.operands[0].type)})1)"
        return f"(-{_convert('i32', one)})"
    return _convert(_kind(_result(op)), args[0])


def _extend_float(op: Any, args: list[str]) -> str | None:
    source = str(_scalar(op.operands[0].type))
    wide = _as("f32", f"({_convert('u32', args[0])} << 16)") if source == "bf16" else args[0]
    return None if source == "f16" else _convert(_kind(_result(op)), wide)


def _truncate_float(op: Any, args: list[str]) -> str | None:
    return _convert("f32", args[0]) if _kind(_result(op)) == "f32" else None


def _from_integer(signed: bool) -> Expression:
    def emit(op: Any, args: list[str]) -> str | None:
        source, kind = op.operands[0].type, _kind(_result(op))
        if kind not in ("f32", "f64"):
            return None
        number = _signed(source, args[0]) if signed else f"({args[0]} & 1)" if _boolean(source) else args[0]
        return _convert(kind, number)

    return emit


def _to_integer(signed: bool) -> Expression:
    def emit(op: Any, args: list[str]) -> str | None:
        type_ = _result(op)
        if _boolean(type_) or _kind(op.operands[0].type) not in ("f32", "f64"):
            return None
        return _as(_kind(type_), _convert(f"i{_bits(type_)}", args[0])) if signed else _convert(_kind(type_), args[0])

    return emit


def _bitcast(op: Any, args: list[str]) -> str:
    source, target = _kind(op.operands[0].type), _kind(_result(op))
    return args[0] if source == target else _as(target, args[0])


def _named(name: str) -> Expression:
    def emit(op: Any, args: list[str]) -> str | None:
        kind = _kind(op.operands[0].type)
        return f"tp_{name}_{kind}v({', '.join(args)})" if kind in ("f32", "f64") else None

    return emit


def _absolute(op: Any, args: list[str]) -> str | None:
    kind = _kind(_result(op))
    if kind not in ("f32", "f64"):
        return None
    mask = "0x7ffffffffffffffful" if kind == "f64" else "0x7fffffffu"
    return _as(kind, f"({_as(f'u{kind[1:]}', args[0])} & {mask})")


def _broadcast(op: Any, args: list[str]) -> str:
    value = f"-{args[0]}" if _boolean(_result(op)) else args[0]
    return f"({ctype(_result(op))})({value})"


def _shuffle(op: Any, args: list[str]) -> str:
    names, width = args, op.operands[0].type.shape[0]
    lanes = [int(lane) for lane in ir.DenseI64ArrayAttr(op.attributes["mask"])]
    if all(lane < width for lane in lanes):
        return f"{names[0]}.s{''.join(f'{lane:x}' for lane in lanes)}"
    return f"({ctype(_result(op))})({', '.join(f'{names[i // width]}.s{i % width:x}' for i in lanes)})"


def _constant(op: Any, args: list[str]) -> str:
    return constant(op.attributes["value"], _result(op))


_EXPRESSIONS: dict[str, Expression] = {
    "arith.constant": _constant, "vector.broadcast": _broadcast, "vector.shuffle": _shuffle,
    "ub.poison": lambda op, args: f"({ctype(_result(op))})0",
    "arith.addi": _infix("+", "^"), "arith.subi": _infix("-", "^"), "arith.muli": _infix("*", "&"),
    "arith.andi": _infix("&", "&"), "arith.ori": _infix("|", "|"), "arith.xori": _infix("^", "^"),
    "arith.shli": _shift("<<"), "arith.shrui": _shift(">>"), "arith.shrsi": _shift(">>", signed=True),
    "arith.maxsi": _extreme(">", True), "arith.minsi": _extreme("<", True), "arith.maxui": _extreme(">", False),
    "arith.minui": _extreme("<", False), "arith.cmpi": _compare, "arith.cmpf": _compare_float,
    "arith.select": _select, "arith.addf": _infix("+"), "arith.subf": _infix("-"), "arith.mulf": _infix("*"),
    "arith.divf": _infix("/"), "arith.negf": lambda op, args: f"(-{args[0]})",
    "arith.maximumf": _named("maximum"), "arith.minimumf": _named("minimum"), "arith.maxnumf": _named("maxnum"),
    "arith.minnumf": _named("minnum"), "arith.extf": _extend_float, "arith.truncf": _truncate_float,
    "arith.bitcast": _bitcast, "arith.extsi": _extend_signed, "arith.extui": _extend, "arith.trunci": _truncate,
    "arith.sitofp": _from_integer(True), "arith.uitofp": _from_integer(False), "arith.fptosi": _to_integer(True),
    "arith.fptoui": _to_integer(False), "math.fma": _named("fma"), "math.absf": _absolute,
}  # fmt: skip
