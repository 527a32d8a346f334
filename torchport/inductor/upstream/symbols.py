"""Strides that are expressions of sizes, which Inductor does not always compare.

Those of a result with channels last, which it makes itself, it sorts as it sorts numbers: SymPy refuses. From PyTorch
2.13 on it asks whether one stride is a multiple of another by SymPy's remainder, which becomes one of a fraction:
PyTorch has no range for it, and no code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy

from torchport.inductor.compat import TOUCHES, Mod, V, ir
from torchport.inductor.shared import Switch
from torchport.inductor.upstream.corrections import applies

__all__ = ["symbolic_strides"]

_ours = Switch("torchport_symbolic_strides")


@_ours.installed
def symbolic_strides() -> None:
    """Compare strides of any kind while the context is open, in this thread."""
    sort: Callable[..., Sequence[int]] = ir.get_fill_order

    def fill_order(strides: Sequence[Any], shape_env: Any = None) -> Sequence[int]:
        """Where a ``shape_env`` is given, Inductor asks it, which knows the sizes of the example."""
        if shape_env is None and _ours.is_on() and applies("symbolic-orders") and any(map(_is_symbolic, strides)):
            shape_env = V.graph.sizevars.shape_env
        return sort(strides, shape_env)

    ir.get_fill_order = fill_order
    if not TOUCHES["Layout"].is_touched:
        return
    compare: Callable[[Any, Any], bool] = ir.Layout._stride_expr_ge_or_false

    def is_at_least(left: Any, right: Any) -> bool:
        if not _ours.is_on() or not applies("stride-remainders"):
            return compare(left, right)
        known: Callable[[Any], bool] = V.graph.sizevars.guard_or_false
        if known(sympy.Eq(right, 0)):
            return True
        if known(sympy.Eq(left, 0)):
            return False
        return known(sympy.Ge(left, right)) or known(sympy.Eq(Mod(left, right), 0))

    ir.Layout._stride_expr_ge_or_false = staticmethod(is_at_least)


def _is_symbolic(stride: Any) -> bool:
    return isinstance(stride, sympy.Expr) and not stride.is_number
