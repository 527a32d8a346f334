"""Converts ``tl.float8e4b15``, which Triton leaves to its targets: the frontend calls this while it builds TTIR.

The format has a sign, 4 bits of exponent with bias 15, and 3 bits of mantissa; no infinity, no NaN. Its lower 7 bits
are the bits 7 .. 13 of the float16 of the same value. As on Triton's CUDA target, float32 is first truncated to float16
(towards zero), and float16 is rounded to nearest with ties away from zero. Values above 1.75, and NaN, become 1.75.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from triton.language import core

__all__ = ["convert_custom_types"]

_LARGEST = 0x3F00  # 1.75 in float16


def _convert(arg: Any, dst_ty: Any, fp_downcast_rounding: Any = None, _semantic: Any = None) -> Any:
    """Convert ``arg`` to ``dst_ty``; one of the two types is float8e4b15 or a block of it."""
    s = _semantic
    if arg.type.scalar.is_fp8e4b15():
        bits = s.cast(s.bitcast(arg, _like(arg, core.uint8)), _like(arg, core.uint16))
        sign = s.shl(s.and_(bits, _number(0x80, s)), _number(8, s))
        magnitude = s.shl(s.and_(bits, _number(0x7F, s)), _number(7, s))
        return s.cast(s.bitcast(s.or_(sign, magnitude), _like(arg, core.float16)), dst_ty)
    if not arg.type.scalar.is_fp16():
        arg = s.cast(s.cast(arg, _like(arg, core.float32)), _like(arg, core.float16), "rtz")
    bits = s.bitcast(arg, _like(arg, core.uint16))
    magnitude = s.minimum(s.and_(bits, _number(0x7FFF, s)), _number(_LARGEST, s), core.PropagateNan.NONE)
    rounded = s.add(s.shl(magnitude, _number(1, s)), _number(0x80, s), False)
    byte = s.lshr(s.or_(rounded, s.and_(bits, _number(0x8000, s))), _number(8, s))
    return s.bitcast(s.cast(byte, _like(arg, core.uint8)), dst_ty)


def _like(arg: Any, scalar: Any) -> Any:
    return arg.type.with_element_ty(scalar) if arg.type.is_block() else scalar


def _number(value: int, semantic: Any) -> Any:
    return semantic.scalar_constant(value, core.uint16)


convert_custom_types: Callable[..., Any] = core.builtin(_convert)
