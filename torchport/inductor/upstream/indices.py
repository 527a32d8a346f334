"""Values computed from indices (``arange(n) * 3``) in the integers that they need.

Inductor computes them with the kernel's index variables, which have 32 bits where all tensors are small enough,
however large the values become. A kernel with such values gets 64-bit indices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy
import torch

from torchport.inductor.compat import ValueRanges, bound_sympy

__all__ = ["needs_64_bits"]

_INT32 = torch.iinfo(torch.int32)
_LARGEST_SIZE = 1 << 30
"""Assumed of a size that is not known: tensors for which that is too small have 64-bit indices anyway."""


def needs_64_bits(features: Any) -> bool:
    """Whether a kernel (its SIMDKernelFeatures) computes a value from indices that may exceed 32 bits on the way."""
    for node in features.scheduler_nodes():
        body = node._body
        for expression in _expressions(body):
            ranges = {variable: _range(size) for variable, size in body.var_ranges.items()}
            for part in sympy.preorder_traversal(expression):
                if isinstance(part, sympy.Expr) and not part.is_Boolean and _exceeds(part, ranges):
                    return True
    return False


def _expressions(body: Any) -> Iterator[sympy.Expr]:
    for node in body.get_nodes():
        if node.target in ("index_expr", "value_expr"):
            index = node.args[1]
            if index.target == "get_index":
                yield body.indexing_exprs[index.args[0]]


def _range(size: sympy.Expr) -> Any:
    return ValueRanges(0, max(int(size) - 1, 0) if size.is_Integer else _LARGEST_SIZE)


def _exceeds(expression: sympy.Expr, ranges: dict[sympy.Symbol, Any]) -> bool:
    others = {
        symbol: ValueRanges(-_LARGEST_SIZE, _LARGEST_SIZE) for symbol in expression.free_symbols if symbol not in ranges
    }
    bounds = bound_sympy(expression, {**ranges, **others})
    return bool(bounds.is_int and (bounds.lower < _INT32.min or bounds.upper > _INT32.max))
