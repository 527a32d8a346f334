"""Chooses blocks of reductions for CPUs: along which dimension, and of how many sums side by side."""

from __future__ import annotations

from math import prod
from typing import Any

import sympy

from torchport.inductor.codegen.sizes import block, capabilities
from torchport.inductor.compat import ReductionHint, V, next_power_of_2

__all__ = ["LANES", "LONGEST_OUTER", "is_inner", "persistent_length", "reduction_blocks"]

LANES = 64
"""Accumulators of a looped reduction: eight AVX2 registers of fp32, four of AVX-512."""
ROWS = 4
"""The most rows that a block of a persistent reduction holds: while one's sum is waited for, the next one is read."""
ROWS_BYTES = 8192
"""What they may have together, so that they stay in the first-level cache with the tensors beside them."""
_MANY_ROWS = 64
"""Rows from which on a block has several: fewer are shared among threads one by one."""
LONGEST_OUTER = 256
"""Terms that one accumulator adds in a row if the reduced dimension is not contiguous. The error of a sum grows with
the square root of their number; a second, short sum adds the parts."""


def persistent_length(features: Any) -> int:
    """Elements of the reduced dimension in a block of a persistent reduction."""
    return int(next_power_of_2(int(V.graph.sizevars.optimization_hint(features.reduction_numel))))


def is_inner(features: Any) -> bool:
    """Whether the reduced dimension is the contiguous one, of most of what is read."""
    hint = features.get_reduction_hint()
    if hint in (ReductionHint.OUTER, ReductionHint.OUTER_TINY):
        return False
    sizes = V.graph.sizevars
    few = sizes.statically_known_leq(features.reduction_numel, LONGEST_OUTER) or _widest_read(features) <= 2
    if hint == ReductionHint.INNER and not few:
        return True  # Inductor divided it so that sums along rows have not too many terms
    inner = outer = 0
    for node in features.reduction_nodes():
        iteration, reduction = node._body.vars
        for index in node._body.indexing_exprs.values():
            elements = _elements(index, node._body.var_ranges)
            inner += elements * _has_unit_stride(index, reduction)
            outer += elements * _has_unit_stride(index, iteration)
    return inner >= outer


def reduction_blocks(features: Any, tiling: dict[str, Any], persistent: bool) -> dict[str, int]:
    """Blocks of the dimensions of ``tiling``; of those that are reduced only where the reduction loops."""
    sizes, inner = V.graph.sizevars, is_inner(features)
    outer_names = [name for name in tiling if not name.startswith("r")]
    reduced = [name for name in tiling if name.startswith("r")]
    long = not all(sizes.statically_known_leq(tiling[name], 15) for name in reduced)
    if inner:
        widths = {"x": (_rows(features) if persistent else 1) if long else LANES}
    else:
        widths = {"x": block(tiling["x"], LANES, LANES // 4)}
    blocks = {f"{name.upper()}BLOCK": widths.get(name, 1) for name in outer_names}
    if not persistent:
        for name in reduced:
            last = name == reduced[-1]
            blocks[f"{name.upper()}BLOCK"] = block(tiling[name], 2 * LANES, LANES) if inner and last else 1
    return blocks


def _elements(index: sympy.Expr, sizes: dict[Any, Any]) -> int:
    """How many different elements an index reaches."""
    elements = prod(size for variable, size in sizes.items() if index.has(variable))
    return int(V.graph.sizevars.optimization_hint(elements))


def _widest_read(features: Any) -> int:
    """Bytes of the largest elements that a kernel reads."""
    nodes = features.scheduler_nodes()
    made = {name for node in nodes for name in node.get_buffer_names()}
    read = {dep.name for node in nodes for dep in node.read_writes.reads} - made
    return max((V.graph.get_dtype(name).itemsize for name in read), default=1)


def _reads_rows(features: Any) -> bool:
    """Whether reductions read along rows: else a block of rows would be added up row by row, in one sum each."""
    along = 0
    for node in features.reduction_nodes():
        iteration, reduction = node._body.vars
        for index in node._body.indexing_exprs.values():
            along += _has_unit_stride(index, reduction)
            if _has_unit_stride(index, iteration) and any(index.has(variable) for variable in reduction):
                return False
    return along > 0


def _has_unit_stride(index: sympy.Expr, variables: Any) -> bool:
    return bool(variables) and any(index.coeff(v) == 1 for v in variables)


def _rows(features: Any) -> int:
    """How many rows a block of a persistent reduction holds: several of short rows, where a program is one thread."""
    able, sizes = capabilities(), V.graph.sizevars
    many = int(sizes.optimization_hint(features.numel)) >= _MANY_ROWS
    if able is None or able.simd_groups != (1,) or not many or not _reads_rows(features):
        return 1
    widest, rows = _widest_read(features), ROWS
    while rows > 1 and not sizes.statically_known_leq(features.reduction_numel * widest * rows, ROWS_BYTES):
        rows //= 2
    return rows
