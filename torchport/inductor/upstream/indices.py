"""Values computed from indices (``arange(n) * 3``) in the integers that they need.

Inductor computes them with the kernel's index variables, which have 32 bits where all tensors are small enough,
however large the values become. A kernel with such values gets 64-bit indices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy
import torch

from torchport.inductor.compat import (
    FloorDiv,
    ModularIndexing,
    PythonMod,
    SymT,
    V,
    ValueRanges,
    bound_sympy,
    symbol_is_type,
)

__all__ = ["needs_64_bits"]

_INT32 = torch.iinfo(torch.int32)
_GROWTH = 1 << 10
"""How much larger than its example a value may become where sizes are not known."""


def needs_64_bits(features: Any) -> bool:
    """Whether a kernel (its SIMDKernelFeatures) computes a number from indices that may exceed 32 bits on the way."""
    return any(
        _exceeds(part, node._body.var_ranges) for node in features.scheduler_nodes() for part in _parts(node._body)
    )


def _parts(body: Any) -> Iterator[sympy.Expr]:
    """What must not wrap: all of an index used as a value, and the dividends in those of loads and stores.

    A sum of products may wrap on its way to an address within 32 bits, a quotient may not.
    """
    values = {
        node.args[1].args[0]
        for node in body.get_nodes()
        if node.target in ("index_expr", "value_expr") and getattr(node.args[1], "target", None) == "get_index"
    }
    for name, expression in body.indexing_exprs.items():
        for part in sympy.preorder_traversal(expression):
            if isinstance(part, (FloorDiv, ModularIndexing, PythonMod)):
                yield part.args[0]
            elif name in values and isinstance(part, sympy.Expr) and not part.is_Boolean:
                yield part


def _exceeds(expression: sympy.Expr, ranges: dict[sympy.Symbol, sympy.Expr]) -> bool:
    if expression.is_Symbol:
        return False
    bounds = bound_sympy(expression, {symbol: _range(symbol, ranges) for symbol in expression.free_symbols})
    largest = max(-bounds.lower, bounds.upper)
    known = all(symbol in ranges and ranges[symbol].is_Integer for symbol in expression.free_symbols)
    return bool(bounds.is_int and largest * (1 if known else _GROWTH) > _INT32.max)


def _range(symbol: sympy.Symbol, ranges: dict[sympy.Symbol, sympy.Expr]) -> Any:
    """The values of an index, or of a size by the example inputs."""
    if symbol in ranges:
        return ValueRanges(0, max(int(V.graph.sizevars.optimization_hint(ranges[symbol])) - 1, 0))
    computed = symbol_is_type(symbol, SymT.INDIRECT)
    size = _GROWTH if computed else int(V.graph.sizevars.optimization_hint(symbol, fallback=_GROWTH))
    return ValueRanges(min(size, 0), max(size, 0))
