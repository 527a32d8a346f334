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

from torchport.inductor.codegen.reductions import LANES, LONGEST_OUTER, is_inner, persistent_length, reduction_blocks
from torchport.inductor.codegen.sizes import block, capabilities
from torchport.inductor.compat import FixedTritonConfig, InductorChoices, V
from torchport.inductor.quarantined import fitted, region_name
from torchport.inductor.scope import current

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
PAGE = 1024
"""Elements of 32 bits in a page, whose lines are spread over the sets of the first cache."""
PERSISTENT = 4096
"""Longest inner reduction held whole in a block."""
SPLIT = 1 << 16
"""A reduction to a few outputs is split into parts of about this many elements."""
MAX_PARTS = 64
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
            blocks = reduction_blocks(features, tiling, bool(persistent))
        else:
            blocks = _pointwise_blocks(tiling, _contiguous_prefixes(tiling, features), _stored_along(tiling, features))
        capacity = _block_capacity() // (persistent_length(features) if persistent else 1)
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
        return fits and is_inner(features)

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
    able = capabilities()
    return PERSISTENT if able is None else able.block_elements


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


def _turned(numel: Any, limit: int) -> int:
    """The other side of a tile, of whole squares."""
    few = V.graph.sizevars.statically_known_leq(numel, 2)
    return block(numel, limit, SQUARE) if few else max(SQUARE, block(numel, limit, SQUARE))


def _tile(x: Any, y: Any) -> dict[str, int]:
    """A tile of a kernel that stores along x and reads along y, or the other way around.

    Rows of several lines are longer along x, where most kernels store. Rows that lie whole pages apart share a set of
    the first cache, whichever side they are on: a tile takes few of them, and longer ones.
    """
    able = capabilities()
    if able is None or able.simd_groups != (1,):
        return {"XBLOCK": block(x, TILE, TILE // 2), "YBLOCK": block(y, TILE, TILE // 4)}
    known = V.graph.sizevars.statically_known_multiple_of
    if known(y, PAGE) and not known(x, PAGE // 2):
        return {"XBLOCK": block(x, SQUARE, SQUARE), "YBLOCK": _turned(y, 4 * TILE)}
    if known(x, PAGE) and not known(y, PAGE // 2):
        return {"XBLOCK": block(x, 4 * TILE, TILE), "YBLOCK": _turned(y, SQUARE)}
    return {"XBLOCK": block(x, 2 * TILE, TILE), "YBLOCK": _turned(y, TILE)}


def _pointwise_blocks(tiling: dict[str, Any], contiguous: bool, outermost: int) -> dict[str, int]:
    names = [name for name in tiling if not name.startswith("r")]
    if len(names) == 1:
        numel = tiling[names[0]]
        large = V.graph.sizevars.optimization_hint(numel) >= MANY * POINTWISE
        return {f"{names[0].upper()}BLOCK": block(numel, POINTWISE if large else POINTWISE // 4, POINTWISE // 16)}
    x, y, *rest = sorted(names)
    if outermost:
        return {"XBLOCK": block(tiling[x], TILE, TILE // 4), "YBLOCK": 1, "ZBLOCK": outermost}
    if contiguous:
        blocks = {"XBLOCK": block(tiling[x], POINTWISE // 4, POINTWISE // 16)}
        rows = max(1, POINTWISE // blocks["XBLOCK"])
        blocks["YBLOCK"] = block(tiling[y], rows, max(1, rows // 16))  # of an odd size: all, up to a bound
    else:  # tiles whose rows and columns both fill cache lines
        blocks = _tile(tiling[x], tiling[y])
    for name in rest:
        left = POINTWISE // prod(blocks.values())
        few = left > LEAST_PART  # a block of so few elements takes as long to begin as to compute
        blocks[f"{name.upper()}BLOCK"] = block(tiling[name], left, max(1, left // 16)) if few else 1
    return blocks
