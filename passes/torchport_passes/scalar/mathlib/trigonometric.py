"""sin and cos of f32 as vector code where Sleef is; arguments beyond ``_FAR`` branch to a call of it.

Reduction to [-pi/4, pi/4] by three parts of pi/2 (Cody and Waite; Muller, Elementary Functions, 3rd ed., chapter 11)
with fused multiply-add: the first product is exact in it, and what rounding loses of the second one is carried.
Polynomials are minimax fits (tools/fit_polynomials.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlir import ir
from mlir.dialects import arith, scf, vector

from torchport_passes.scalar.mathlib.calls import Externals
from torchport_passes.scalar.mathlib.inline_f32 import ROUNDER
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["TRIGONOMETRIC"]

_FAR = 65536.0
"""Up to here the error is at most 0.96 ULP (measured). Farther out the reduction loses bits."""
_TWO_OVER_PI = float.fromhex("0x1.45f306p-1")
_PI_HALF = (float.fromhex("0x1.921fb6p+0"), float.fromhex("-0x1.777a5cp-25"), float.fromhex("-0x1.ee59dap-50"))
_SIN = ("-0x1.555556p-3", "0x1.111176p-7", "-0x1.a05bb6p-13", "0x1.7cd640p-19")
_MINUS_COS = ("0x1.000000p-1", "-0x1.55554ap-5", "0x1.6c0c1ap-10", "-0x1.99e0e4p-16")
_SPLIT = 0.046875
"""So that both parts of -cos(r) + 1 - _SPLIT stay below a power of two: 1/16 and 1/4."""


def _near(x: VectorValue, quarter: int) -> VectorValue:
    """sin(x + quarter * pi/2) for |x| up to ``_FAR``.

    Both are ``base + factor P(r^2)``: sin(r) with base r and factor r^3, -cos(r) with factor r^2 and two constants in
    place of -1, so that what is added to the base is below 1/4 and rounded that finely. So one polynomial is computed,
    with the coefficients that an element needs; a blend costs less than a multiply-add.
    """
    size = x.abs()
    shifted = size.fma(_TWO_OVER_PI, ROUNDER + 1.0)
    n = shifted - (ROUNDER + 1.0)
    high, middle, low = _PI_HALF
    exact = n.fma(-high, size)
    product = n * middle
    r = exact - product  # +0.0 for 0.0
    rounded = n.fma(-middle, product)  # of the product, with its sign
    lost = n.fma(-low, ((exact - r) - product) + rounded)
    turns = shifted.to_bits()  # n + 1
    sine = (turns & 1).ne(quarter)
    square = r * r
    pairs = [(float.fromhex(a), float.fromhex(b)) for a, b in zip(_SIN, _MINUS_COS, strict=True)]
    terms = [select(sine, square.const(a), b) for a, b in pairs]
    rest = square.fma(square.fma(terms[3], terms[2]), terms[1])
    factor = select(sine, square * r, square)
    small = (square * factor).fma(rest, select(sine, lost, lost.fma(r, -_SPLIT)))
    found = select(sine, r, _SPLIT - 1.0) + factor.fma(terms[0], small)  # rounded once less than in Horner's scheme
    sign = (turns + quarter) << 30  # the second lowest bit: n = 1 or 2, of the sine
    sign = (sign ^ x.to_bits() if quarter == 0 else sign) & -(2**31)
    return (found.to_bits() ^ sign).cast_bits(x.element)


def _function(name: str, quarter: int) -> Callable[[Externals, Sequence[VectorValue]], VectorValue]:
    def implementation(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
        (x,) = args
        if x.bits != 32 or not externals.has_sleef:
            return externals.call(name, args)
        near = _near(x, quarter)
        far = x.abs().gt(_FAR)
        some = far.value
        if isinstance(x.type, ir.VectorType):
            some = vector.reduction(ir.IntegerType.get_signless(1), vector.CombiningKind.OR, some)
        never = ir.Operation.create("llvm.intr.expect", [some.type], [some, arith.constant(some.type, 0)]).results[0]
        branch = scf.IfOp(never, [x.type], has_else=True)
        with ir.InsertionPoint(branch.then_block):
            scf.YieldOp([select(far, externals.call(name, args), near).value])
        with ir.InsertionPoint(branch.else_block):
            scf.YieldOp([near.value])
        return VectorValue(branch.results[0])

    return implementation


TRIGONOMETRIC = {"sin": _function("sin", 0), "cos": _function("cos", 1)}
"""Implementations by name."""
