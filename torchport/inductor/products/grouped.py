"""Lowers products of groups of rows, each with a matrix of its own, as a mixture of experts has them.

These are aten's ``_grouped_mm`` of [rows, in] and [groups, in, out], and the operator that the transformers package
registers for types that Inductor does not take there. Both run one product of aten's a group.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import sympy
import torch

from torchport.inductor.codegen.templates import Template
from torchport.inductor.compat import FloorDiv, V, flex, ir, next_power_of_2
from torchport.inductor.products.grouped_template import GROUPED
from torchport.inductor.products.lowering import by_row_or_column, facts_of, is_one, limits
from torchport.inductor.products.rules import Choice, Facts, choose

__all__ = ["LOWERINGS", "choose_grouped", "registered"]

_ENDS = (torch.int32, torch.int64)
_MIDDLE, _LARGE = 1 << 19, 1 << 21
"""Elements of a matrix: where there are more, waiting for memory is more of the time, and the library waits less."""
_FEWEST, _SOME, _MANY = 2, 8, 256
"""Rows of a group on average from which products are ours: of small, middle and large matrices."""
_MOST = 256
_PART = 1024
"""Rows of a program: groups are cut where one ends, and their weights packed once more."""


@functools.cache
def _template() -> Template:
    return Template("torchport_grouped_mm", GROUPED, shared=True)


def choose_grouped(
    rows: int, groups: int, n: int, k: int, strides: tuple[int, int], dtype: torch.dtype, cpu: Facts
) -> Choice | None:
    """The kernel for ``rows`` rows in ``groups`` groups, times [k, n] of ``strides`` each; None for the library's.

    What decides about a product of many rows decides here; blocks have about as many rows as a group.
    """
    if groups <= 0 or rows < groups * _fewest(n * k, strides[0] == 1, cpu):
        return None
    choice = choose(_MOST, n, k, strides, dtype, cpu)
    if choice is None or choice.kernel != "DOT":
        return None
    return replace(choice, rows=max(32, min(_MOST, next_power_of_2(-(-rows // groups)))))


def _fewest(elements: int, by_column: bool, cpu: Facts) -> int:
    """Rows of a group on average from which products are ours, as measured: docs/performance/products.md."""
    if cpu.slow:
        return _FEWEST
    if elements > _LARGE:
        return _SOME if by_column and not cpu.pairs else _MANY
    if cpu.pairs:
        return 0
    return _SOME if elements > _MIDDLE else _FEWEST


def _aten_grouped(x: Any, weight: Any, ends: Any = None, bias: Any = None, out_dtype: Any = None) -> Any:
    """Of aten's operator, which has more forms than this one, and leaves rows behind the last end as memory was."""
    if ends is None or bias is not None or out_dtype not in (None, x.get_dtype()):
        return NotImplemented
    return _product(x, weight, ends)


def _product(x: Any, weight: Any, ends: Any) -> Any:
    """Of ``transformers::grouped_mm_fallback``; NotImplemented where the library's products stay."""
    cpu, dtype, sizes = limits(), x.get_dtype(), V.graph.sizevars
    if cpu is None or weight.get_dtype() != dtype or ends.get_dtype() not in _ENDS:
        return NotImplemented
    if [len(one.get_size()) for one in (x, weight, ends)] != [2, 3, 1]:
        return NotImplemented
    m, (groups, k, n) = x.get_size()[0], weight.get_size()
    known = [sizes.simplify(size) for size in (groups, k, n)]
    if not all(isinstance(size, sympy.Integer) for size in known) or sizes.statically_known_equals(m, 0):
        return NotImplemented
    groups, k, n = map(int, known)
    x, weight, ends = flex.maybe_realize([x, weight, ends])
    weight = by_row_or_column(weight)
    steps = [int(sizes.optimization_hint(stride)) for stride in weight.get_stride()[1:]]
    facts = facts_of(dtype, cpu)
    rows = int(sizes.optimization_hint(m))
    choice = choose_grouped(rows, groups, n, k, (steps[0], steps[1]), dtype, facts)
    if choice is None:
        return NotImplemented
    if not is_one(x.get_stride()[1]):
        x = ir.ExternKernel.require_contiguous(x)
    by_column = is_one(weight.get_stride()[1]) and not is_one(weight.get_stride()[2])
    left = 0 if choice.parts else k % choice.terms
    constants = {
        "XBLOCK": choice.columns,
        "M_BLOCK": choice.rows,
        "BLOCK": choice.terms,
        "PART": _PART,
        "PARTS": choice.parts,
        "REST": max(8, next_power_of_2(left)) if left else 0,
        "APART": choice.apart,
        "PAIRS": facts.pairs,
        "W_BY_COLUMN": by_column,
        "WHOLE_COLUMNS": n % choice.columns == 0,
        "COLUMNS_BACK": n > choice.columns and n % choice.columns > 0 and not by_column,
    }
    layout = ir.FixedLayout(x.get_device(), dtype, [m, sympy.Integer(n)], [_row(n), 1])
    grid = [sympy.Integer(n), FloorDiv(m + (_PART - 1), _PART), sympy.Integer(1)]
    return _template().append([x, weight, ends], layout, grid, [], [], constants)


def _row(n: int) -> int:
    """Elements from one row of the result to the next: aten's operator fills them up to 16 bytes with some of torch."""
    value = V.graph.current_node.meta.get("val")
    return max(n, int(value.stride(0))) if isinstance(value, torch.Tensor) else n


LOWERINGS: Mapping[Any, Callable[..., Any]] = {torch.ops.aten._grouped_mm.default: _aten_grouped}


def registered(package: str = "transformers") -> Mapping[Any, Callable[..., Any]]:
    """Lowerings of the operators that ``package`` has registered in this process; none if it was not imported."""
    found = getattr(getattr(torch.ops, package), "grouped_mm_fallback", None)
    return {} if found is None else {found.default: _product}
