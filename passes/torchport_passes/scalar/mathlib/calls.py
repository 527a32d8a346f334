"""Emits calls of Sleef's vector functions and of the C library's scalar ones.

Sleef's symbols are the ones libtorch_cpu exports: 256- and 512-bit vectors on x86-64, 128-bit ones on aarch64. Shorter
values are padded, longer ones split, and scalars take lane 0 of the narrowest vector, so that an element's result does
not depend on where in a vector (or in a scalar tail loop) it was computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mlir import ir
from mlir.dialects import arith, func, vector

from torchport_passes.ir.ops import text_attribute
from torchport_passes.scalar.mathlib.vector_value import VectorValue, element_type

__all__ = ["SLEEF", "Externals", "Implementation"]

# function -> (symbol stem for f64, accuracy suffix). The f32 stem is the same: Sleef_<stem>f16_<suffix>,
# Sleef_<stem>d8_... The suffix is the bound in tenths of an ULP; no suffix: exact.
SLEEF: dict[str, str] = {
    "acos": "_u10",
    "acosh": "_u10",
    "asin": "_u10",
    "asinh": "_u10",
    "atan": "_u10",
    "atan2": "_u10",
    "atanh": "_u10",
    "cbrt": "_u10",
    "cos": "_u10",
    "cosh": "_u10",
    "cospi": "_u05",
    "erf": "_u10",
    "erfc": "_u15",
    "exp": "_u10",
    "exp10": "_u10",
    "exp2": "_u10",
    "expm1": "_u10",
    "fmod": "",
    "hypot": "_u05",
    "lgamma": "_u10",
    "log": "_u10",
    "log10": "_u10",
    "log1p": "_u10",
    "log2": "_u10",
    "nextafter": "",
    "pow": "_u10",
    "remainder": "",
    "sin": "_u10",
    "sinh": "_u10",
    "sinpi": "_u05",
    "tan": "_u10",
    "tanh": "_u10",
    "tgamma": "_u10",
}

# Widths (bits) of the vectors that libtorch_cpu's Sleef has, by architecture.
_WIDTHS = {"x86_64": (256, 512), "aarch64": (128,)}


@dataclass
class Externals:
    """Declares external functions in one module and calls them.

    ``vector_bits`` is the widest vector register of the machine; ``arch`` is ``x86_64`` or ``aarch64`` (any other has
    no Sleef here: the C library is called lane by lane).
    """

    module: ir.Module
    vector_bits: int
    arch: str
    _declared: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for op in self.module.body.operations:
            if "sym_name" in op.attributes:
                self._declared.add(text_attribute(op, "sym_name"))

    @property
    def has_sleef(self) -> bool:
        """Whether calls reach Sleef; a language's or the C library's functions are called elsewhere."""
        return self.arch in _WIDTHS

    def call(self, function: str, args: Sequence[VectorValue]) -> VectorValue:
        """``function`` of f32 or f64 values (scalars or 1-D vectors of one shape), by Sleef if that has it."""
        bits = args[0].bits
        widths = [w // bits for w in _WIDTHS.get(self.arch, ()) if w <= self.vector_bits]
        if function not in SLEEF or not widths:
            return self.call_libm(function, args)
        type_ = args[0].type
        if not isinstance(type_, ir.VectorType):
            return self._call_scalar(function, args, widths[0])
        lanes = ir.VectorType(type_).shape[0]
        if lanes in widths:
            return self._call_exact(function, args, lanes)
        return self._call_pieces(function, args, lanes, widths)

    def call_libm(self, function: str, args: Sequence[VectorValue]) -> VectorValue:
        """The C library's scalar ``function``, once for each lane. Arguments may be floats of one type and i32."""
        floats = next(a for a in args if a.is_float)
        symbol = function if floats.bits == 64 else function + "f"
        result = floats.element
        type_ = floats.type
        if not isinstance(type_, ir.VectorType):
            return VectorValue(self._emit(symbol, [a.value for a in args], result))
        out = arith.ConstantOp(type_, ir.DenseElementsAttr.get_splat(type_, ir.FloatAttr.get(result, 0.0))).result
        for lane in range(ir.VectorType(type_).shape[0]):
            scalars = [vector.extract(a.value, [], [lane]) for a in args]
            out = vector.insert(self._emit(symbol, scalars, result), out, [], [lane])
        return VectorValue(out)

    def declare(self, symbol: str) -> bool:
        """Take note of a function that the caller adds to the module. False if the module has one of that name."""
        known = symbol in self._declared
        self._declared.add(symbol)
        return not known

    def _emit(self, symbol: str, values: Sequence[ir.Value], result: ir.Type) -> ir.Value:
        if self.declare(symbol):
            with ir.InsertionPoint.at_block_begin(self.module.body):
                declaration = func.FuncOp(symbol, ([v.type for v in values], [result]), visibility="private")
            # memory 0: reads and writes nothing (errno is not used), so LLVM may hoist, merge and remove calls.
            declaration.attributes["passthrough"] = ir.Attribute.parse('["nounwind", "willreturn", ["memory", "0"]]')
        return func.CallOp([result], symbol, list(values)).result

    def _call_exact(self, function: str, args: Sequence[VectorValue], lanes: int) -> VectorValue:
        letter = "d" if args[0].bits == 64 else "f"
        symbol = f"Sleef_{function}{letter}{lanes}{SLEEF[function]}"
        return VectorValue(self._emit(symbol, [a.value for a in args], args[0].type))

    def _call_scalar(self, function: str, args: Sequence[VectorValue], lanes: int) -> VectorValue:
        wide = ir.VectorType.get([lanes], args[0].element)
        result = self._call_exact(function, [VectorValue(vector.broadcast(wide, a.value)) for a in args], lanes)
        return VectorValue(vector.extract(result.value, [], [0]))

    def _call_pieces(
        self, function: str, args: Sequence[VectorValue], lanes: int, widths: Sequence[int]
    ) -> VectorValue:
        type_ = args[0].type
        parts: list[ir.Value] = []
        start = 0
        while start < lanes:
            left = lanes - start
            width = next((w for w in widths if w >= left), widths[-1])
            taken = min(left, width)
            # Padding repeats the last lane, whose value is computed anyway: no new slow path.
            picks = [start + min(i, taken - 1) for i in range(width)]
            pieces = [VectorValue(vector.shuffle(a.value, a.value, picks)) for a in args]
            result = self._call_exact(function, pieces, width).value
            parts.append(result if taken == width else vector.shuffle(result, result, list(range(taken))))
            start += taken
        return VectorValue(_concatenate(parts, type_))


Implementation: TypeAlias = Callable[[Externals, Sequence[VectorValue]], VectorValue]
"""Emits a function's value from its arguments."""


def _concatenate(parts: Sequence[ir.Value], type_: ir.Type) -> ir.Value:
    if len(parts) == 1:
        return parts[0]
    zero = ir.FloatAttr.get(element_type(type_), 0.0)
    whole = arith.ConstantOp(type_, ir.DenseElementsAttr.get_splat(type_, zero)).result
    offset = 0
    for part in parts:
        whole = vector.insert_strided_slice(part, whole, [offset], [1])
        offset += ir.VectorType(part.type).shape[0]
    return whole
