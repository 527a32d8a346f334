"""Lowers aten's products to kernels of ``templates``, where ``choose`` says that these win."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import sympy
import torch

from torchport.capabilities import Capabilities
from torchport.inductor.codegen.templates import Template
from torchport.inductor.compat import FloorDiv, V, flex, ir, lowerings, next_power_of_2, unset_fake_temporarily
from torchport.inductor.host import limits
from torchport.inductor.products import templates
from torchport.inductor.products.rules import FEW_ROWS, MOST_BATCHED, Choice, Facts, choose, worth_of_batches
from torchport.inductor.scope import current

__all__ = [
    "LOWERINGS", "NAMES", "by_row_or_column", "facts_of", "flushes", "is_one", "limits", "product", "run", "slow",
    "template",
]  # fmt: skip

_aten = torch.ops.aten

_SUPPORTED: dict[torch.dtype, Callable[[], bool]] = {
    torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
    torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
}
"""Whether the library has products of a type for this CPU."""

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""Types as ``Capabilities`` names them."""

_REST, _LEAST_REST = 16, 8
"""Terms of a block for what blocks of unknown length leave over; the least one where the length is known."""


@functools.cache
def template(name: str) -> Template:
    """One of ``templates``. Parsing takes 5 ms, and most graphs leave their products to aten."""
    return Template(f"torchport_mm_{name.lower()}", getattr(templates, name), shared=True)


def _mm(a: Any, b: Any, out_dtype: Any = None, **kwargs: Any) -> Any:
    """Of matrices, or of batches of them."""
    if out_dtype is not None or kwargs:
        return NotImplemented
    return product(a, b, None, 1, 1)


def _addmm(bias: Any, a: Any, b: Any, *, alpha: Any = 1, beta: Any = 1, **kwargs: Any) -> Any:
    if kwargs or not all(type(factor) in (int, float) for factor in (alpha, beta)) or beta == 0:
        return NotImplemented
    return product(a, b, bias, alpha, beta)


def product(a: Any, b: Any, bias: Any, alpha: float, beta: float, out: torch.dtype | None = None) -> Any:
    """alpha * a @ b + beta * bias of matrices or batches of them; NotImplemented where aten is not slower.

    ``out``: the type of the result, if it is another one than the operands'.
    """
    cpu, dtype = limits(), a.get_dtype()
    if cpu is None or dtype != b.get_dtype() or (bias is not None and bias.get_dtype() != dtype):
        return NotImplemented
    sizes = V.graph.sizevars
    *batch, m, k = a.get_size()
    n = b.get_size()[-1]
    facts = facts_of(dtype, cpu)
    known = all(isinstance(sizes.simplify(size), sympy.Integer) for size in (m, n, k))
    batches = facts.pairs or facts.fast
    if not facts.slow and (not known or (batch and not batches)):
        return NotImplemented
    rows, columns, terms = (max(1, int(sizes.optimization_hint(size))) for size in (m, n, k))
    if batch and dtype == torch.float32 and not worth_of_batches(rows, columns, terms):
        return NotImplemented
    if batch and facts.pairs and rows > MOST_BATCHED and not facts.slow:
        return NotImplemented
    a, b = (by_row_or_column(one) for one in flex.maybe_realize([a, b]))
    steps = [int(sizes.optimization_hint(stride)) for stride in b.get_stride()[-2:]]
    if not known or (batch and (not batches or rows <= FEW_ROWS)):
        steps = [0, 0]  # the kernels for few rows take matrices of known size, and no batches
    choice = choose(rows, columns, terms, (steps[0], steps[1]), dtype, facts, _by_column(a))
    if choice is None or any(sizes.statically_known_equals(size, 0) for size in (*batch, m, n, k)):
        return NotImplemented
    return run(choice, a, b, bias, out or dtype, alpha, beta, batch, known)


def run(
    choice: Choice, a: Any, b: Any, bias: Any, dtype: torch.dtype, alpha: float, beta: float, batch: Any, known: bool
) -> Any:
    """Call a kernel for alpha * a @ b + beta * bias in the graph. ``known``: sizes are, and there are no batches."""
    sizes = V.graph.sizevars
    m, k = a.get_size()[-2:]
    n = b.get_size()[-1]
    rows, columns, terms = (max(1, int(sizes.optimization_hint(size))) for size in (m, n, k))
    by_block = choice.kernel == "DOT"
    pairs = by_block and (cpu := limits()) is not None and facts_of(a.get_dtype(), cpu).pairs
    constants: dict[str, Any] = {
        "XBLOCK" if by_block else "M_BLOCK": choice.rows,
        "N_BLOCK" if by_block else "XBLOCK": choice.columns,
        "BLOCK": choice.terms,
        "REST": _rest(0 if choice.parts else terms % choice.terms) if known else _REST,
        "BIASED": bias is not None,
        "ALPHA": alpha,
        "BETA": beta,
        "INTEGER": dtype == torch.int32,
        "COLUMNS_BACK": choice.kernel == "COLUMNS",
        "SPREAD": choice.spread,
    }
    if by_block:
        beyond = columns > choice.columns and columns % choice.columns > 0
        constants |= {
            "PARTS": choice.parts,
            "PAIRS": pairs,
            "COLUMNS_BACK": (pairs or a.get_dtype() == torch.float32) and known and beyond and not _by_column(b),
            "APART": choice.apart,
            "BATCHED": bool(batch),
            "WHOLE_ROWS": known and rows % choice.rows == 0,
            "WHOLE_COLUMNS": known and columns % choice.columns == 0,
            "X_BY_COLUMN": _by_column(a),
            "W_BY_COLUMN": _by_column(b),
        }
    inputs = [a, b]
    if bias is not None:
        inputs += flex.maybe_realize([lowerings[_aten.expand.default](bias, [*batch, m, n])])
    layout = ir.FixedLayout(a.get_device(), dtype, [*batch, m, n])
    grid = [m, FloorDiv(n + (choice.columns - 1), choice.columns)] if by_block else [n, 1]
    return template(choice.kernel).append(inputs, layout, [*grid, *(batch or [1])], [], [], constants)


def _rest(terms: int) -> int:
    """The block that takes the terms that blocks leave over; 0 if there are none."""
    rest: int = max(_LEAST_REST, next_power_of_2(terms)) if terms else 0
    return rest


def by_row_or_column(matrix: Any) -> Any:
    """``matrix``, copied if neighbours in memory belong neither to a row nor to a column."""
    if any(map(is_one, matrix.get_stride()[-2:])):
        return matrix
    return ir.ExternKernel.require_contiguous(matrix)


def _by_column(matrix: Any) -> bool:
    """Whether neighbours in memory belong to one column, and not to one row."""
    row, column = matrix.get_stride()[-2:]
    return is_one(row) and not is_one(column)


def is_one(stride: Any) -> bool:
    """Whether neighbours of a dimension are neighbours in memory, in all calls of the graph."""
    return bool(V.graph.sizevars.statically_known_equals(stride, 1))


def facts_of(dtype: torch.dtype, cpu: Capabilities) -> Facts:
    """What decides about products of a type: instructions, and what was measured (tools/bench_products.py)."""
    name = NAMES.get(dtype, "")
    return Facts(
        cpu.simd_width,
        slow(dtype, cpu.simd_width),
        name in cpu.fast_products,
        dtype == torch.bfloat16 and cpu.bf16_pairs and cpu.fast_pairs and _allowed(),
        dtype not in _SUPPORTED or name in cpu.few_products,
        spread=cpu.distant_streams,
        ragged=name in cpu.ragged_products,
    )


def _allowed() -> bool:
    """Whether products of bfloat16 may take denormals for zeros: aten's do, or the user says so."""
    scope = current()
    asked = "auto" if scope is None else scope.settings.bf16_products
    return asked == "pairs" or (asked == "auto" and flushes())


@functools.cache
def flushes() -> bool:
    """Whether the library's products of bfloat16 take denormals for zeros, as those of AVX512-BF16 do."""
    with unset_fake_temporarily():
        tiny, one = torch.full((32, 32), 1e-39, dtype=torch.bfloat16), torch.ones(32, 32, dtype=torch.bfloat16)
        return bool((tiny @ one == 0).all())


def slow(dtype: torch.dtype, lanes: int) -> bool:
    """Whether aten multiplies matrices of ``dtype`` without instructions for it."""
    if dtype not in _SUPPORTED:
        return False
    return lanes == 8 or (lanes == 16 and not _SUPPORTED[dtype]())


LOWERINGS: dict[Any, Callable[..., Any]] = {
    _aten.mm.default: _mm,
    _aten.bmm.default: _mm,
    _aten.addmm.default: _addmm,
    _aten.baddbmm.default: _addmm,
}
