"""Functions of one number in a nest, and how many registers of them are computed in a step."""

from __future__ import annotations

from torchport_passes.ir.ops import element_type, text_attribute
from torchport_passes.ir.types import Op
from torchport_passes.vectorize.nest_info import NestInfo

__all__ = ["INLINE", "function_of_one", "registers_of_functions"]

INLINE = frozenset({"erf", "exp", "exp2", "expm1", "log", "log2", "rsqrt", "tanh"})
"""Those of 15 to 50 operations and no branch (``scalar/mathlib/inline_f32.py``)."""
_CHAINS = INLINE - {"rsqrt"}  # a root and a quotient keep their unit busy
_BITS = 256


def function_of_one(op: Op) -> str | None:
    """The function of one number that an operation computes; None where it is arithmetic."""
    if op.name == "tt.extern_elementwise":  # tp_exp_f32
        return text_attribute(op, "symbol").removeprefix("tp_").rpartition("_")[0]
    return op.name.removeprefix("math.") if op.name.startswith("math.") else None


def registers_of_functions(nest: NestInfo, vector_bits: int) -> int:
    """Registers of lanes in a step of a nest without reductions, by the functions that it computes.

    The operations of a function wait for each other, 80 to 100 cycles in all. With AVX2, whose constants are operations
    of their own, a core does not look ahead as far as the next vector's: two in one step share the constants, and are
    computed at the same time. Twice as wide vectors with AVX-512 are slower (docs/performance/kernels.md).
    """
    if vector_bits != _BITS or nest.reduced_dim is not None:
        return 1
    return 2 if any(_is_chain(op) for op, _ in nest.uses) else 1


def _is_chain(op: Op) -> bool:
    return function_of_one(op) in _CHAINS and str(element_type(op.results[0].type)) == "f32"
