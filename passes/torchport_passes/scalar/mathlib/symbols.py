"""Finds the function that an operation computes, by its name or its external symbol.

``tp.extern`` has the symbol that Triton's frontend wrote: torchport's (``tp_erf_f32``, see frontend/libdevice.py) or,
in TTIR for other targets, CUDA's (``__nv_erff``) or AMD's (``__ocml_erf_f32``).
"""

from __future__ import annotations

import re

from mlir import ir

from torchport_passes.ir.ops import text_attribute

__all__ = ["function_of", "function_of_symbol"]

# math operations with another name than the function.
_MATH = {
    "absf": "abs",
    "absi": "abs",
    "powf": "pow",
    "fpowi": "pow",
    "ctlz": "clz",
    "ctpop": "popc",
    "roundeven": "rint",
}
# CUDA symbols that are not the function's name plus f, d, l or ll.
_CUDA = {
    "mul64hi": "mulhi",
    "umul64hi": "umulhi",
    "llabs": "abs",
    "fabs": "abs",
    "fabsf": "abs",
    "finitef": "isfinite",
    "isfinited": "isfinite",
    "powi": "pow",
    "powif": "pow",
    "fast_fdividef": "fast_dividef",
    "sqrt_rn": "sqrt",
}
_OURS = re.compile(r"tp_(\w+)_(?:f|i|u)\d+$")
_AMD = re.compile(r"__ocml_(\w+)_f\d+$")


def function_of(op: ir.OpView) -> str:
    """The name under which ``torchport_passes.scalar.mathlib.table`` lists what ``op`` computes."""
    if op.name == "tp.extern":
        return function_of_symbol(text_attribute(op, "symbol"))
    stem = str(op.name).split(".", 1)[1]
    if op.name == "arith.remf":
        return "fmod"
    return _MATH.get(stem, stem.removeprefix("precise_"))


def function_of_symbol(symbol: str) -> str:
    """The name for the symbol of an external function."""
    if match := _OURS.match(symbol) or _AMD.match(symbol):
        return match[1]
    if not symbol.startswith("__nv_"):
        return symbol
    from torchport_passes.scalar.mathlib.table import IMPLEMENTATIONS

    stem = symbol.removeprefix("__nv_")
    if stem in _CUDA:
        return _CUDA[stem]
    for candidate in (stem, stem[:-1], stem[:-2], stem[1:]):
        if candidate in IMPLEMENTATIONS:
            return candidate
    return stem
