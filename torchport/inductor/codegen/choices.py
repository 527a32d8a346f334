"""Chooses block sizes for CPUs: one configuration a kernel, from sizes alone, nothing benchmarked.

The target vectorizes a block as a loop over its elements, and divides the grid among a few threads, so a block is
hundreds to thousands of elements. Its innermost dimension should be contiguous, it should divide the sizes (no masks),
and accumulators should fit in registers. No choice depends on the number of threads, so results do not either.
"""

from __future__ import annotations

from math import prod
from typing import Any

import sympy
import torch

from torchport.capabilities import Capabilities
from torchport.inductor.compat import FixedTritonConfig, InductorChoices, ReductionHint, V, next_power_of_2
from torchport.inductor.quarantined import fitted, region_name
from torchport.inductor.scope import current
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["TorchportChoices"]

POINTWISE = 4096
"""Elements of a pointwise block: a microsecond of work, in the first-level cache; a quarter of it for small tensors."""
MANY = 16
"""A tensor of at least this many large blocks gets large blocks: enough to share among cores."""
LEAST_PART = 16
"""How many blocks of two dimensions a large block holds where the third one is divided into single indices."""
TILE = 32
"""Side of a tile of a kernel that reads along one dimension and writes along another."""
SQUARE = 16
"""What tiles have sides of: CPUs turn them in squares of registers, of which 24 or 3 channels leave parts empty."""
PERSISTENT = 4096
"""Longest inner reduction held whole in a block."""
ROWS = 4
"""The most rows that a block of a persistent reduction holds: while one's sum is waited for, the next one is read."""
ROWS_BYTES = 8192
"""What they may have together, so that they stay in the first-level cache with the tensors beside them."""
LANES = 64
"""Accumulators of a looped reduction: eight AVX2 registers of fp32, four of AVX-512."""
SPLIT = 1 << 16
"""A reduction to a few outputs is split into parts of about this many elements."""
MAX_PARTS = 64
LONGEST_OUTER = 256
"""Terms that one accumulator adds in a row if the reduced dimension is not contiguous. The error of a sum grows with
the square root of their number; a second, short sum adds the parts."""
LONGEST_INNER = LONGEST_OUTER * LANES
"""The same for inner reductions, where a block has at least LANES accumulators."""

_SCANS = ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "associative_scan")


class TorchportChoices(InductorChoices):
    """Inductor's choices, replaced by torchport's for devices of type ``device``."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def triton_kernel_kwargs(
        self, kernel_cls: Any, features: Any, groups: list[Any], kernel_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Fix the kernel's configuration and whether its reduction is persistent."""
        if V.graph.get_current_device_or_throw().type != self.device or "Split" in kernel_cls.__name__:
            return kernel_kwargs
        tiling: dict[str, Any] = groups[0]
        kwargs = {**kernel_kwargs, "override_cooperative_reduction": False}
        persistent = kwargs.get("override_persistent_reduction")
        if features.is_reduction():
            if persistent is None:
                persistent = self.should_use_persistent_reduction(features, False)
                kwargs["override_persistent_reduction"] = persistent
            rows = _rows(features) if persistent else 1
            blocks = _reduction_blocks(tiling, bool(persistent), _is_inner(features), rows)
        else:
            blocks = _pointwise_blocks(tiling, _contiguous_prefixes(tiling, features), _stored_along(tiling, features))
        capacity = _block_capacity() // (_reduced(features) if persistent else 1)
        while prod(blocks.values()) > max(1, capacity):
            blocks = fitted(blocks, 1)
        if (scope := current()) is not None and scope.halvings:
            blocks = fitted(blocks, scope.halvings.get(region_name(features.scheduler_nodes()), 0))
        kwargs["fixed_config"] = FixedTritonConfig({**blocks, "num_warps": 1, "num_stages": 1})
        return kwargs

    @staticmethod
    def should_use_persistent_reduction(features: Any, cooperative_reduction: bool) -> bool:
        """Inner reductions that fit in a block (of PERSISTENT elements at most) are persistent; all others loop."""
        if cooperative_reduction or not features.is_reduction():
            return False
        limit = min(PERSISTENT, _block_capacity())
        fits = bool(V.graph.sizevars.statically_known_leq(features.reduction_numel, limit))
        return fits and _is_inner(features)

    @staticmethod
    def reduction_split_factor(
        device: torch.device, reduction_numel_hint: int, numel_hint: int, inner_reduction: bool
    ) -> int:
        """Parts to divide a reduction into, so that several cores can work when it has only a few outputs.

        A function of the sizes alone: the number of threads does not change the order of additions.
        """
        node = V.graph.current_node
        if node is not None and any(scan in str(node.target) for scan in _SCANS):
            return 1  # a split scan waits for its predecessors in the grid, which needs all of it in flight
        programs = numel_hint if inner_reduction else -(-numel_hint // LANES)
        for_cores = min(MAX_PARTS, reduction_numel_hint * numel_hint // SPLIT) // max(programs, 1)
        for_accuracy = min(MAX_PARTS, reduction_numel_hint // (LONGEST_INNER if inner_reduction else LONGEST_OUTER))
        least = max(for_cores, for_accuracy, 1)
        even = (parts for parts in range(least, 2 * least) if reduction_numel_hint % parts == 0)
        return next(even, least)  # even parts need no mask


def _block_capacity() -> int:
    """The most elements that the target allows in a block."""
    able = _capabilities()
    return PERSISTENT if able is None else able.block_elements


def _capabilities() -> Capabilities | None:
    """Those of the target; None where no graph is compiled for one."""
    scope = current()
    if scope is None:
        return None
    target = Target.parse(scope.settings.target)
    return backend_for(target).capabilities(target)


def _reduced(features: Any) -> int:
    """Elements of the reduced dimension in a block of a persistent reduction."""
    return int(next_power_of_2(int(V.graph.sizevars.optimization_hint(features.reduction_numel))))


def _is_inner(features: Any) -> bool:
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


def _contiguous_prefixes(tiling: dict[str, Any], features: Any) -> bool:
    """Whether every tensor of a tiled pointwise kernel is contiguous along the last dimension, or along none."""
    if len(tiling) < 2:
        return True
    for node in features.scheduler_nodes():
        variables = list(node._body.vars[0])
        for index in node._body.indexing_exprs.values():
            used = [v for v in variables if index.has(v)]
            units = [v for v in used if index.coeff(v) == 1]
            if units and units[-1] is not variables[-1] and variables[-1] in used:
                return False
    return True


def _stored_along(tiling: dict[str, Any], features: Any) -> int:
    """Neighbours that kernels of three dimensions store along the outermost one, in vectors; 0 where they do not.

    Channels that lie last while loops follow the channels first: where a pixel shuffle is read by a convolution.
    """
    if len([name for name in tiling if not name.startswith("r")]) != 3:
        return 0
    found = 0
    for node in features.scheduler_nodes():
        (variables, _), (sizes, _) = node._body.vars, node._body.sizes
        outer, at = sympy.Integer(1), -1
        while at + 1 < len(sizes) and outer != tiling["z"]:
            at += 1
            outer *= sizes[at]
        stores = node._body.get_write_exprs()
        if at < 0 or outer != tiling["z"] or any(index.coeff(variables[at]) != 1 for index in stores):
            return 0
        length = next((length for length in (64, 32) if sizes[at] % length == 0), 0)
        if not length:
            return 0
        found = min(found or length, length)
    return found


def _block(numel: Any, limit: int, least: int) -> int:
    """A power of two up to ``limit`` for a dimension of ``numel``.

    The largest in [least, limit] that divides it, so that no mask is needed; otherwise one that covers it, or
    ``limit``: the target peels the masked end off, which costs less than short loops do.
    """
    sizes = V.graph.sizevars
    block = limit
    while block >= least:
        if sizes.statically_known_multiple_of(numel, block):
            return block
        block //= 2
    hint = int(sizes.optimization_hint(numel))
    return min(limit, max(1, int(next_power_of_2(hint))))


def _turned(numel: Any) -> int:
    """The other side of a tile, of whole squares where the target turns them."""
    able = _capabilities()
    if able is None or not able.vector_lanes:
        return _block(numel, TILE, TILE // 4)
    few = V.graph.sizevars.statically_known_leq(numel, 2)
    return _block(numel, TILE, SQUARE) if few else max(SQUARE, _block(numel, TILE, SQUARE))


def _pointwise_blocks(tiling: dict[str, Any], contiguous: bool, outermost: int) -> dict[str, int]:
    names = [name for name in tiling if not name.startswith("r")]
    if len(names) == 1:
        numel = tiling[names[0]]
        large = V.graph.sizevars.optimization_hint(numel) >= MANY * POINTWISE
        return {f"{names[0].upper()}BLOCK": _block(numel, POINTWISE if large else POINTWISE // 4, POINTWISE // 16)}
    x, y, *rest = sorted(names)
    if outermost:
        return {"XBLOCK": _block(tiling[x], TILE, TILE // 4), "YBLOCK": 1, "ZBLOCK": outermost}
    if contiguous:
        blocks = {"XBLOCK": _block(tiling[x], POINTWISE // 4, POINTWISE // 16)}
        rows = max(1, POINTWISE // blocks["XBLOCK"])
        blocks["YBLOCK"] = _block(tiling[y], rows, max(1, rows // 16))  # of an odd size: all, up to a bound
    else:  # tiles whose rows and columns both fill cache lines
        blocks = {"XBLOCK": _block(tiling[x], TILE, TILE // 2), "YBLOCK": _turned(tiling[y])}
    for name in rest:
        left = POINTWISE // prod(blocks.values())
        few = left > LEAST_PART  # a block of so few elements takes as long to begin as to compute
        blocks[f"{name.upper()}BLOCK"] = _block(tiling[name], left, max(1, left // 16)) if few else 1
    return blocks


def _rows(features: Any) -> int:
    """How many rows a block of a persistent reduction holds: several of short rows, where a program is one thread."""
    able, sizes = _capabilities(), V.graph.sizevars
    many = int(sizes.optimization_hint(features.numel)) >= MANY * ROWS
    if able is None or able.simd_groups != (1,) or not many or not _reads_rows(features):
        return 1
    widest, rows = _widest_read(features), ROWS
    while rows > 1 and not sizes.statically_known_leq(features.reduction_numel * widest * rows, ROWS_BYTES):
        rows //= 2
    return rows


def _reduction_blocks(tiling: dict[str, Any], persistent: bool, inner: bool, rows: int) -> dict[str, int]:
    sizes = V.graph.sizevars
    outer_names = [name for name in tiling if not name.startswith("r")]
    reduced = [name for name in tiling if name.startswith("r")]
    long = not all(sizes.statically_known_leq(tiling[name], 15) for name in reduced)
    if inner:
        widths = {"x": rows if long else LANES}
    else:
        widths = {"x": _block(tiling["x"], LANES, LANES // 4)}
    blocks = {f"{name.upper()}BLOCK": widths.get(name, 1) for name in outer_names}
    if not persistent:
        for name in reduced:
            last = name == reduced[-1]
            blocks[f"{name.upper()}BLOCK"] = _block(tiling[name], 2 * LANES, LANES) if inner and last else 1
    return blocks
