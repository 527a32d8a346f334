"""Writes scalar operations as C expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_simt.types import ctype, signed, suffix

__all__ = ["FLOAT_COMPARISONS", "expression"]

Expression = Callable[[Any, list[str]], str]


def expression(op: Any, args: list[str]) -> str | None:
    """The C expression of ``op``, which has one result; None if it is not an expression."""
    found = _EXPRESSIONS.get(op.name)
    return None if found is None else found(op, args)


def _type(op: Any) -> Any:
    return op.results[0].type


def _wide(type_: Any) -> str:
    """The type that an integer operation is done in: C would turn narrow unsigned ones into int, whose overflow is
    undefined.
    """
    return "tp_u32" if str(type_) in ("i1", "i8", "i16") else ctype(type_)


def _integer(symbol: str) -> Expression:
    def emit(op: Any, args: list[str]) -> str:
        type_ = _type(op)
        wide = _wide(type_)
        result = f"(({wide}){args[0]} {symbol} ({wide}){args[1]})"
        return f"({result} & 1u)" if str(type_) == "i1" else f"({ctype(type_)}){result}"

    return emit


def _signed(symbol: str) -> Expression:
    def emit(op: Any, args: list[str]) -> str:
        type_ = signed(_type(op))
        return f"({ctype(_type(op))})(({type_}){args[0]} {symbol} ({type_}){args[1]})"

    return emit


def _as_signed(type_: Any, arg: str) -> str:
    return f"(-(tp_i32){arg})" if str(type_) == "i1" else f"({signed(type_)}){arg}"


def _shift(symbol: str) -> Expression:
    """Shifts; an amount of at least the width gives 0 instead of undefined behaviour."""

    def emit(op: Any, args: list[str]) -> str:
        type_ = _type(op)
        width = 64 if str(type_) == "index" else int(str(type_)[1:])
        kind = ctype(type_)
        return f"({args[1]} < {width}u ? ({kind})(({_wide(type_)}){args[0]} {symbol} {args[1]}) : ({kind})0)"

    return emit


def _shift_signed(op: Any, args: list[str]) -> str:
    type_ = _type(op)
    width = int(str(type_)[1:])
    amount = f"({args[1]} < {width}u ? {args[1]} : {width - 1}u)"
    return f"({ctype(type_)})(({signed(type_)}){args[0]} >> {amount})"


def _extreme(symbol: str, is_signed: bool) -> Expression:
    def emit(op: Any, args: list[str]) -> str:
        a, b = (_as_signed(_type(op), arg) if is_signed else arg for arg in args)
        return f"({a} {symbol} {b} ? {args[0]} : {args[1]})"

    return emit


_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "<", "<=", ">", ">=")  # arith.cmpi's predicates: eq ne s* u*


def _compare(op: Any, args: list[str]) -> str:
    predicate = ir.IntegerAttr(op.attributes["predicate"]).value
    a, b = args
    if 2 <= predicate <= 5:
        a, b = (_as_signed(op.operands[0].type, arg) for arg in args)
    return f"({a} {_COMPARISONS[predicate]} {b})"


FLOAT_COMPARISONS = (  # arith.cmpf's predicates, in MLIR's order
    "0", "({a} == {b})", "({a} > {b})", "({a} >= {b})", "({a} < {b})", "({a} <= {b})", "({a} < {b} || {a} > {b})",
    "({a} == {a} && {b} == {b})", "!({a} < {b} || {a} > {b})", "!({a} <= {b})", "!({a} < {b})", "!({a} >= {b})",
    "!({a} > {b})", "({a} != {b})", "({a} != {a} || {b} != {b})", "1",
)  # fmt: skip


def _compare_float(op: Any, args: list[str]) -> str:
    text = FLOAT_COMPARISONS[ir.IntegerAttr(op.attributes["predicate"]).value]
    return text.format(a=args[0], b=args[1])


def _float(symbol: str) -> Expression:
    return lambda op, args: f"({args[0]} {symbol} {args[1]})"


def _named(name: str) -> Expression:
    """A function of common.h or of the preamble, by its name and the type."""
    return lambda op, args: f"tp_{name}_{suffix(op.operands[0].type)}({', '.join(args)})"


def _extend_float(op: Any, args: list[str]) -> str:
    source, target = str(op.operands[0].type), str(_type(op))
    if source in ("f16", "bf16"):
        wide = f"tp_{source}_to_f32({args[0]})"
        return wide if target == "f32" else f"(double){wide}"
    return f"(double){args[0]}"


def _truncate_float(op: Any, args: list[str]) -> str:
    source, target = str(op.operands[0].type), str(_type(op))
    if target == "f32":
        return f"(float){args[0]}"
    if source != "f32":
        raise UnsupportedOperation(op.name, f"{source} to {target} in one step")
    return f"tp_f32_to_{target}({args[0]})"


def _bitcast(op: Any, args: list[str]) -> str:
    source, target = str(op.operands[0].type), str(_type(op))
    if ctype(op.operands[0].type) == ctype(_type(op)):
        return args[0]
    if {source, target} in ({"f32", "i32"}, {"f64", "i64"}):
        return f"tp_as_{suffix(_type(op))}({args[0]})"
    raise UnsupportedOperation(op.name, f"{source} as {target}")


def _extend_signed(op: Any, args: list[str]) -> str:
    source, target = op.operands[0].type, _type(op)
    if str(source) == "i1":
        return f"({ctype(target)})(-({signed(target)}){args[0]})"
    return f"({ctype(target)})({signed(target)})({signed(source)}){args[0]}"


def _truncate(op: Any, args: list[str]) -> str:
    return f"(tp_bool)({args[0]} & 1u)" if str(_type(op)) == "i1" else f"({ctype(_type(op))}){args[0]}"


def _from_integer(is_signed: bool) -> Expression:
    """Integers are converted to 16-bit floats through f32, as in eager torch."""

    def emit(op: Any, args: list[str]) -> str:
        number = _as_signed(op.operands[0].type, args[0]) if is_signed else args[0]
        target = str(_type(op))
        if target in ("f16", "bf16"):
            return f"tp_f32_to_{target}((float){number})"
        return f"({ctype(_type(op))}){number}"

    return emit


def _to_integer(is_signed: bool) -> Expression:
    def emit(op: Any, args: list[str]) -> str:
        source, type_ = str(op.operands[0].type), _type(op)
        number = f"tp_{source}_to_f32({args[0]})" if source in ("f16", "bf16") else args[0]
        return f"({ctype(type_)})({signed(type_)}){number}" if is_signed else f"({ctype(type_)}){number}"

    return emit


def _resize_index(op: Any, args: list[str]) -> str:
    return f"({ctype(_type(op))})({signed(_type(op))}){args[0]}"


def _cast(op: Any, args: list[str]) -> str:
    return f"({ctype(_type(op))}){args[0]}"


def _absolute(op: Any, args: list[str]) -> str:
    return f"({_as_signed(_type(op), args[0])} < 0 ? ({ctype(_type(op))})(0u - {args[0]}) : {args[0]})"


def _address(op: Any, args: list[str]) -> str:
    size = ir.IntegerAttr(op.attributes["elem_bytes"]).value
    return f"({args[0]} + (tp_i64){_as_signed(op.operands[1].type, args[1])} * {size})"


def _program(function: str) -> Expression:
    return lambda op, args: f"(tp_u32){function}({ir.IntegerAttr(op.attributes['axis']).value})"


def _refuse_pointer(op: Any, args: list[str]) -> str:
    raise UnsupportedOperation(
        op.name,
        "an address that a kernel makes from an integer is none of the device's; pass the tensor as an argument",
        location=str(op.location),
    )


_EXPRESSIONS: dict[str, Expression] = {
    "arith.addi": _integer("+"), "arith.subi": _integer("-"), "arith.muli": _integer("*"), "arith.andi": _integer("&"),
    "arith.ori": _integer("|"), "arith.xori": _integer("^"), "arith.divui": _integer("/"), "arith.remui": _integer("%"),
    "arith.divsi": _signed("/"), "arith.remsi": _signed("%"), "arith.shli": _shift("<<"), "arith.shrui": _shift(">>"),
    "arith.shrsi": _shift_signed, "arith.maxsi": _extreme(">", True), "arith.minsi": _extreme("<", True),
    "arith.maxui": _extreme(">", False), "arith.minui": _extreme("<", False), "arith.cmpi": _compare,
    "arith.cmpf": _compare_float, "arith.select": lambda op, args: f"({args[0]} ? {args[1]} : {args[2]})",
    "arith.addf": _float("+"), "arith.subf": _float("-"), "arith.mulf": _float("*"), "arith.divf": _float("/"),
    "arith.negf": lambda op, args: f"(-{args[0]})", "arith.maximumf": _named("maximum"),
    "arith.minimumf": _named("minimum"), "arith.maxnumf": _named("maxnum"), "arith.minnumf": _named("minnum"),
    "arith.extf": _extend_float, "arith.truncf": _truncate_float, "arith.bitcast": _bitcast,
    "arith.extsi": _extend_signed, "arith.extui": _cast, "arith.trunci": _truncate, "arith.sitofp": _from_integer(True),
    "arith.uitofp": _from_integer(False), "arith.fptosi": _to_integer(True), "arith.fptoui": _to_integer(False),
    "arith.index_cast": _resize_index, "arith.index_castui": _cast,
    "math.fma": _named("fma"), "math.absf": _named("fabs"), "math.ceil": _named("ceil"), "math.floor": _named("floor"),
    "math.trunc": _named("trunc"), "math.round": _named("round"), "math.roundeven": _named("rint"),
    "math.sqrt": _named("sqrt"), "math.copysign": _named("copysign"), "math.ctlz": _named("clz"),
    "math.ctpop": _named("popcount"), "math.cttz": _named("ctz"), "math.absi": _absolute,
    "math.isnan": lambda op, args: f"({args[0]} != {args[0]})",
    "math.isinf": lambda op, args: f"({args[0]} == {args[0]} && {args[0]} - {args[0]} != 0)",
    "math.isfinite": lambda op, args: f"({args[0]} - {args[0]} == 0)",
    "tt.addptr": _address, "tt.get_program_id": _program("TP_GROUP"), "tt.get_num_programs": _program("TP_GROUPS"),
    "llvm.ptrtoint": lambda op, args: f"({ctype(_type(op))})(tp_u64){args[0]}",
    "llvm.inttoptr": _refuse_pointer, "llvm.mlir.zero": lambda op, args: f"({ctype(_type(op))})0",
    "tp.lane": lambda op, args: "(tp_u32)TP_LANE",
}  # fmt: skip
