"""sin and cos of f32 as vector code where Sleef is; vectors with an argument beyond 2^16 pi/2 branch to a call of it.

Reduction to [-pi/4, pi/4] by three parts of pi/2 (Cody and Waite; Muller, Elementary Functions, 3rd ed., chapter 11)
with fused multiply-add: the first product is exact in it, and what rounding loses of the second one is carried.
Polynomials are minimax fits (tools/fit_polynomials.py).

On Zen 4 the multipliers are what waits: a blend costs half as much as a multiply-add, so one polynomial is computed
with the coefficients that an element needs. Where both functions of one value are asked for, both polynomials are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlir import ir
from mlir.dialects import vector

from torchport_passes.scalar.mathlib.calls import Externals
from torchport_passes.scalar.mathlib.inline_f32 import ROUNDER
from torchport_passes.scalar.mathlib.rare import unless_rare
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["TRIGONOMETRIC", "sine_and_cosine"]

_MANY = 2**16
"""So many multiples of pi/2 are subtracted exactly enough for the errors of docs/math.md."""
_BIASED = ROUNDER + _MANY
_FEW = ~(2 * _MANY - 1)
"""Mask of the bits of ``_BIASED`` that adding an integer in [-_MANY, _MANY) leaves as they are."""
_BIASED_BITS = 0x4B400000
_TWO_OVER_PI = float.fromhex("0x1.45f306p-1")
_PI_HALF = (float.fromhex("0x1.921fb4p+0"), float.fromhex("0x1.4442d2p-24"), float.fromhex("-0x1.ee59dap-50"))
"""The first one rounded down, so that the second one is positive and -0.0 stays what it is."""
_SIN = tuple(map(float.fromhex, ("0x1.555544p-3", "-0x1.1106c6p-7", "0x1.991bf4p-13")))
_COS = tuple(map(float.fromhex, ("0x1.dfd8b2p-2", "-0x1.4866a8p-5", "0x1.623bfcp-10", "-0x1.95eda6p-16")))
_CENTER = float.fromhex("0x1.8953e2p-2")
_COS_CENTER = float.fromhex("0x1.a0c68cp-1")
"""cos(sqrt(_CENTER)) within 2^-41."""

_Two = tuple[VectorValue, VectorValue]


@dataclass(frozen=True)
class _Reduced:
    """x = n pi/2 + r - excess, |r| < 0.79, |excess| < 2^-24; ``turns`` are bits whose lower ones are those of n."""

    r: VectorValue
    excess: VectorValue
    turns: VectorValue

    @classmethod
    def of(cls, x: VectorValue) -> _Reduced:
        """r is x for zeros; garbage where ``is_far``."""
        shifted = x.fma(_TWO_OVER_PI, _BIASED)
        n = shifted - _BIASED
        high, middle, low = _PI_HALF
        exact = n.fma(-high, x)
        r = exact - n * middle
        # r - exact is exact: where the difference above cancels it is the product, else r has the larger last place
        return cls(r, n.fma(low, n.fma(middle, r - exact)), shifted.to_bits())

    def is_far(self) -> VectorValue:
        return _has_many(self.turns ^ _BIASED_BITS)

    def some_is_far(self, vector_bits: int) -> ir.Value:
        """Whether an element is far, a scalar; registers of ``vector_bits`` are joined before they are tested."""
        bits = self.turns ^ _BIASED_BITS
        while isinstance(bits.type, ir.VectorType) and (lanes := bits.type.shape[0]) * 32 > vector_bits:
            if lanes % 2:
                break
            places = list(range(lanes))
            halves = (
                vector.shuffle(bits.value, bits.value, half) for half in (places[: lanes // 2], places[lanes // 2 :])
            )
            low, high = map(VectorValue, halves)
            bits = low | high
        return _has_many(bits).any()

    def sign(self, inverted: bool) -> VectorValue:
        """The second lowest bit of n, or its complement, as a sign."""
        sign = self.turns << 30
        return (~sign if inverted else sign) & -(2**31)


def _has_many(bits: VectorValue) -> VectorValue:
    return (bits & _FEW).ne(0)


def _signed(value: VectorValue, sign: VectorValue) -> VectorValue:
    return (value.to_bits() ^ sign).cast_bits(value.element)


def _minus_product(a: VectorValue, b: VectorValue) -> VectorValue:
    return (-a).fma(b, 0.0)


def _one(reduced: _Reduced, cosine: bool) -> VectorValue:
    """The sine or cosine: sin(r) is ``r - r^3 P(r^2)``, cos(r) ``_COS_CENTER - z P(z)`` with z = r^2 - _CENTER.

    cos(r) is developed around the center of r^2, so that its square is rounded more finely where 1 - cos(r) is large.
    A cosine takes -cos(r), whose correction needs no change of sign.
    """
    r, excess, turns = reduced.r, reduced.excess, reduced.turns
    odd = turns & 1
    straight = odd.ne(0) if cosine else odd.eq(0)
    direction = -1.0 if cosine else 1.0
    z = r.fma(r, select(straight, r.const(0.0), -_CENTER))
    terms = [direction * c for c in _COS]
    total = select(straight, _SIN[2], z.fma(terms[3], terms[2]))
    for degree in (1, 0):
        total = total.fma(z, select(straight, r.const(_SIN[degree]), terms[degree]))
    correction = excess * r if cosine else _minus_product(excess, r)
    rest = select(straight, z * r, z).fma(total, select(straight, excess, correction))
    return _signed(select(straight, r, direction * _COS_CENTER) - rest, reduced.sign(cosine))


def _both(reduced: _Reduced) -> _Two:
    """Sine and cosine, with the bits that ``_one`` gives."""
    r, excess = reduced.r, reduced.excess
    square = r * r
    total = square.fma(square.fma(_SIN[2], _SIN[1]), _SIN[0])
    sine = r - (square * r).fma(total, excess)
    z = r.fma(r, -_CENTER)
    total = z.fma(_COS[3], _COS[2])
    for degree in (1, 0):
        total = total.fma(z, _COS[degree])
    cosine = _COS_CENTER - z.fma(total, _minus_product(excess, r))
    even = (reduced.turns & 1).eq(0)
    first = _signed(select(even, sine, cosine), reduced.sign(inverted=False))
    return first, _signed(select(even, cosine, -sine), reduced.sign(inverted=False))


def _unless_far(
    externals: Externals, x: VectorValue, reduced: _Reduced, near: Sequence[VectorValue], names: Sequence[str]
) -> list[VectorValue]:
    """``near``, but what ``names`` give in elements that are far."""
    far, some = reduced.is_far(), reduced.some_is_far(externals.vector_bits)
    return unless_rare(some, far, near, lambda: [externals.call(name, [x]) for name in names])


def _function(name: str) -> Callable[[Externals, Sequence[VectorValue]], VectorValue]:
    def implementation(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
        (x,) = args
        if x.bits != 32 or not externals.has_sleef:
            return externals.call(name, args)
        reduced = _Reduced.of(x)
        return _unless_far(externals, x, reduced, [_one(reduced, name == "cos")], [name])[0]

    return implementation


def sine_and_cosine(externals: Externals, x: VectorValue) -> _Two:
    """sin(x) and cos(x) with the bits of each alone, for less than both cost."""
    if x.bits != 32 or not externals.has_sleef:
        return externals.call("sin", [x]), externals.call("cos", [x])
    reduced = _Reduced.of(x)
    sine, cosine = _unless_far(externals, x, reduced, _both(reduced), ["sin", "cos"])
    return sine, cosine


TRIGONOMETRIC = {"sin": _function("sin"), "cos": _function("cos")}
"""Implementations by name."""
