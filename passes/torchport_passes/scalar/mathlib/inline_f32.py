"""exp, exp2, expm1, log, log2, tanh, erf and rsqrt of f32 as straight-line vector code.

A call spills every live vector register and cannot be scheduled with the code around it; these cost 10 to 30
instructions. All are below one ULP on every one of the 2^32 inputs (docs/math.md has the measured bounds,
tools/ulp_exhaustive.py measures them), keep denormals, and need fused multiply-add to be that exact. Polynomials are
minimax fits (tools/fit_polynomials.py). Range reductions are the textbook ones: Muller, Elementary Functions, 3rd ed.,
chapter 11 (Cody and Waite), and Fast2Sum (Dekker) where a sum is carried in two parts.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlir import ir
from mlir.dialects import arith

from torchport_passes.ir.ops import constant_float, int_attribute, owner_of
from torchport_passes.scalar.mathlib.rare import unless_rare
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["INLINE", "ROUNDER", "horner"]

_INF = float("inf")
_NAN = float("nan")
_LOG2_E = 1.4426950408889634
# ln 2 in two parts; the high one has 9 trailing zero bits, so that its product with any exponent is exact.
_LN2_HIGH = float.fromhex("0x1.62e400p-1")
_LN2_LOW = float.fromhex("0x1.7f7d1cp-20")
_LOG2_E_HIGH = float.fromhex("0x1.715476p+0")
_LOG2_E_LOW = float.fromhex("0x1.4ae0c0p-26")
# Adding 1.5 * 2^23 rounds to an integer (to nearest even), whose low bits are then the integer: no conversion, no
# poison.
ROUNDER = 12582912.0
_ROUNDER_BITS = 0x4B400000
_SQRT_HALF_BITS = 0x3F3504F3
_LEAST_ROOT = 2.0**-100
_LEAST_ROOT_BITS = 0x0D800000
_INF_BITS = 0x7F800000

_EXP = ("0x1.fffffcp-2", "0x1.555492p-3", "0x1.5558b6p-5", "0x1.1239a2p-7", "0x1.6a4744p-10")
_EXP2 = ("0x1.62e430p-1", "0x1.ebfbdcp-3", "0x1.c6af7ap-5", "0x1.3b2ddap-7", "0x1.5f0976p-10", "0x1.4172bap-13")
_LOG = (
    "0x1.555548p-2", "-0x1.000006p-2", "0x1.99a478p-3", "-0x1.555c4ep-3", "0x1.233b78p-3",
    "-0x1.fc26acp-4", "0x1.e6c03ep-4", "-0x1.de1004p-4", "0x1.1484e8p-4",
)  # fmt: skip
_TANH = (
    "-0x1.555552p-2", "0x1.11103cp-3", "-0x1.b9f6dap-5", "0x1.64c044p-6",
    "-0x1.18db62p-7", "0x1.8f860ep-9", "-0x1.ae8c22p-11", "0x1.e76a14p-14",
)  # fmt: skip
_ERF = (
    "0x1.06eba8p-3", "-0x1.812740p-2", "0x1.ce2d64p-4", "-0x1.b8011ap-6",
    "0x1.544a1ap-8", "-0x1.a60a2ep-11", "0x1.4f675ep-14",
)  # fmt: skip
_ERF_TAIL = (
    "0x1.077acap-3", "0x1.453088p-1", "0x1.b34102p-4", "-0x1.85b2fep-6",
    "0x1.dee7cap-9", "-0x1.5577eap-12", "0x1.829c08p-17",
)  # fmt: skip


def horner(x: VectorValue, coefficients: Sequence[str]) -> VectorValue:
    """The polynomial in ``x``; coefficients from that of degree 0 on, as ``float.fromhex`` reads them."""
    total = x.const(float.fromhex(coefficients[-1]))
    for c in reversed(coefficients[:-1]):
        total = total.fma(x, float.fromhex(c))
    return total


def _at_most(x: VectorValue, top: float) -> VectorValue:
    """min(x, top) that keeps NaN."""
    return select(x.gt(top), top, x)


def _power_of_two(n: VectorValue) -> VectorValue:
    """2^n as f32 for integers n in [-126, 127]."""
    return ((n + 127) << 23).cast_bits(ir.F32Type.get())


def _exp_terms(x: VectorValue) -> tuple[VectorValue, VectorValue, VectorValue]:
    """(r, q, n) with exp(x) = (1 + r + q) * 2^n, |r| < 0.35, |q| < r^2, n an integer; x in [-150 ln 2, 129 ln 2].

    r and q are NaN for NaN.
    """
    shifted = x.fma(_LOG2_E, ROUNDER)
    n = shifted - ROUNDER
    exact = n.fma(-_LN2_HIGH, x)
    r = n.fma(-_LN2_LOW, exact)
    lost = n.fma(-_LN2_LOW, exact - r)  # what rounding r dropped
    return r, (r * r).fma(horner(r, _EXP), lost), shifted.to_bits() - _ROUNDER_BITS


def _exp_parts(x: VectorValue) -> tuple[VectorValue, VectorValue]:
    """(p, n) with exp(x) = (1 + p) * 2^n, |p| < 0.42; as ``_exp_terms``."""
    r, q, n = _exp_terms(x)
    return r + q, n


def _scale(significand: VectorValue, n: VectorValue) -> VectorValue:
    """``significand * 2^n`` with one rounding, significand in [1/2, 2], n in [-252, 254]: by two exact powers of two.

    The first product is a normal number, so only the second one rounds (to a denormal) or overflows.
    """
    half = n.sar(1)
    return significand * _power_of_two(half) * _power_of_two(n - half)


def exp(x: VectorValue) -> VectorValue:
    gone = x.lt(-104.0)
    p, n = _exp_parts(_at_most(select(gone, -104.0, x), 89.0))
    return _scale(_unless(gone, p + 1.0), n)


def expm1(x: VectorValue) -> VectorValue:
    """2^n (r + q) + (2^n - 1); the sum of the large terms, 2^n - 1 and 2^n r, is carried in two parts."""
    r, q, n = _exp_terms(_at_most(select(x.lt(-20.0), -20.0, x), 89.0))
    top = n.gt(127)
    power = _power_of_two(select(top, 127, n))
    less = power - 1.0
    head = r.fma(power, less)
    lost = r.fma(power, less - head) + ((power - less) - 1.0)
    result = head + q.fma(power, lost)
    return select(top, result + result, result).copysign(x)  # -0.0


def exp2(x: VectorValue) -> VectorValue:
    if (flushed := _flushed(x)) is not None:
        return _normal_exp2(*flushed)
    gone = x.lt(-151.0)
    x = _at_most(select(gone, -151.0, x), 129.0)
    shifted = x + ROUNDER
    r = x - (shifted - ROUNDER)
    return _scale(_unless(gone, r.fma(horner(r, _EXP2), 1.0)), shifted.to_bits() - _ROUNDER_BITS)


def _normal_exp2(x: VectorValue, least: float) -> VectorValue:
    """2^x, 0 below ``least``: no result is denormal, so the exponent is added to the significand's, exactly."""
    bounded = _at_most(x, 128.0)
    shifted = bounded + ROUNDER  # whose lowest 9 bits are 0 but for the integer
    r = bounded - (shifted - ROUNDER)
    significand = r.fma(horner(r, _EXP2), 1.0).to_bits()
    power = (significand + (shifted.to_bits() << 23)).cast_bits(x.element)
    return select(x.ge(least), power, select(x.lt(0.0), 0.0, x))  # NaN is itself


def _flushed(x: VectorValue) -> tuple[VectorValue, float] | None:
    """(y, least) if x is ``select(y < least, -inf, y)``, as in a softmax, and 2^least a normal number."""
    chosen = owner_of(x.value)
    if chosen is None or chosen.name != "arith.select":
        return None
    condition, low, y = chosen.operands
    compared = owner_of(condition)
    if compared is None or compared.name != "arith.cmpf" or compared.operands[0] != y:
        return None
    least = constant_float(compared.operands[1])
    if int_attribute(compared, "predicate") != arith.CmpFPredicate.OLT or constant_float(low) != -_INF:
        return None
    return None if least is None or not -126.0 <= least <= 0.0 else (VectorValue(y), least)


def _unless(gone: VectorValue, significand: VectorValue) -> VectorValue:
    """0 where the result is 0: a product that underflows costs a processor some 150 cycles, and masks are -inf."""
    return select(gone, 0.0, significand)


def _log_parts(x: VectorValue) -> tuple[VectorValue, VectorValue, VectorValue]:
    """(e, f, low): x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)), and log(1 + f) = f + low, |low| < |f| / 4.

    Meaningful for positive finite x, denormals included.
    """
    tiny = x.lt(2.0**-126)
    bits = select(tiny, x * 2.0**23, x).to_bits() - _SQRT_HALF_BITS
    e = bits.sar(23).to_float(x.element) - select(tiny, x.const(23.0), 0.0)
    f = ((bits & 0x7FFFFF) + _SQRT_HALF_BITS).cast_bits(x.element) - 1.0
    return e, f, (f * f) * f.fma(horner(f, _LOG), -0.5)


def _log_specials(x: VectorValue, result: VectorValue) -> VectorValue:
    result = select(x.lt(_INF), result, x)  # inf and NaN are their own logarithms
    result = select(x.lt(0.0), _NAN, result)
    return select(x.eq(0.0), -_INF, result)


def log(x: VectorValue) -> VectorValue:
    e, f, low = _log_parts(x)
    head = e.fma(_LN2_HIGH, f)
    rest = f - e.fma(-_LN2_HIGH, head)
    return _log_specials(x, head + (rest + e.fma(_LN2_LOW, low)))


def log2(x: VectorValue) -> VectorValue:
    e, f, low = _log_parts(x)
    high = f * _LOG2_E_HIGH
    low = low.fma(_LOG2_E_HIGH, f.fma(_LOG2_E_LOW, f.fma(_LOG2_E_HIGH, -high)))
    head = e + high
    return _log_specials(x, head + ((high - (head - e)) + low))


def tanh(x: VectorValue) -> VectorValue:
    """A polynomial below 1, else 1 - 2 / (exp(2|x|) + 1), whose denominator is formed with one rounding."""
    a = x.abs()
    square = a * a
    small = (a * square).fma(horner(square, _TANH), a)
    p, n = _exp_parts(_at_most(a + a, 20.0))
    power = _power_of_two(n)
    large = 1.0 - 2.0 / p.fma(power, power + 1.0)
    return select(a.lt(1.0), small, large).copysign(x)


def erf(x: VectorValue) -> VectorValue:
    """x + x P(x^2) below 0.925, else 1 - exp(-|x| - |x| G(|x|)); the second idea is N. Juffa's."""
    a = x.abs()
    square = x * x
    small = x.fma(horner(square, _ERF), x)
    t = _at_most(a, 4.0)
    p, n = _exp_parts(-t.fma(horner(t, _ERF_TAIL), t))
    power = _power_of_two(n)
    large = (-p).fma(power, 1.0 - power).copysign(x)  # 1 - power is exact
    return select(a.lt(0.925), small, large)


def rsqrt(x: VectorValue) -> VectorValue:
    """1 / sqrt(x), then one step that removes the rounding errors of the root (s*s - x) and of the quotient.

    Whole vectors of ordinary numbers need nothing else; where one has a zero, a denormal or no number, it branches.
    """
    if not isinstance(x.type, ir.VectorType):
        return _any_rsqrt(x)
    usual = (x.to_bits() - _LEAST_ROOT_BITS).ult(_INF_BITS - _LEAST_ROOT_BITS)
    rare = ~usual
    s = x.sqrt()
    (result,) = unless_rare(rare.any(), rare, [_better_root(x, s, 1.0 / s)[0]], lambda: [_any_rsqrt(x)])
    return result


def _better_root(x: VectorValue, s: VectorValue, r: VectorValue) -> tuple[VectorValue, VectorValue]:
    """(1 / sqrt(x), 1 - s r) for s and r rounded."""
    quotient_error = (-s).fma(r, 1.0)
    root_error = s.fma(s, -x)
    return r.fma((root_error * r * 0.5).fma(r, quotient_error), r), quotient_error


def _any_rsqrt(x: VectorValue) -> VectorValue:
    tiny = x.lt(_LEAST_ROOT)
    scaled = select(tiny, x * 2.0**48, x)
    s = scaled.sqrt()
    r = 1.0 / s
    better, quotient_error = _better_root(scaled, s, r)
    # 0 and inf make the errors NaN (0 * inf); r is already right there.
    result = select(quotient_error.isnan(), r, better)
    return select(tiny, result * 2.0**24, result)


INLINE = {function.__name__: function for function in (erf, exp, exp2, expm1, log, log2, rsqrt, tanh)}
"""Functions of one f32 value, by name."""
