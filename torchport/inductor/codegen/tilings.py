"""Tilings of kernels: Inductor's choice, made once for what it asks again and again.

Inductor asks for the tilings of every pair of nodes that it thinks of fusing, so a graph of a thousand nodes asks tens
of thousands of times. What they follow from is kept here, for one compilation: results are the same, and come sooner.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import sympy

from torchport.inductor.compat import (
    BlockPatternMatcher,
    EnableReduction,
    FloorDiv,
    MemoryDep,
    ModularIndexing,
    SchedulerNode,
    TritonScheduling,
)
from torchport.inductor.scope import current
from torchport.phases import Phase, phase

__all__ = ["TiledScheduling"]


class TiledScheduling(TritonScheduling):
    """Inductor's Triton scheduling, which remembers tilings."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler)
        _match_only_blocks()

    @classmethod
    def get_nd_tilings(cls, node_schedule: Any, pointwise_numel: Any, reduction_numel: Any) -> list[Any]:
        """Candidate tilings of a kernel: those of its nodes.

        Matching a node's indices against block patterns takes milliseconds. The tilings follow from the node's ranges
        and indices, so equal ones (those of the next layer, too) are matched once.
        """
        scope = current()
        if scope is None:
            candidates: list[Any] = super().get_nd_tilings(node_schedule, pointwise_numel, reduction_numel)
            return candidates
        tilings: dict[Any, None] = {}
        nodes: list[Any] = list(EnableReduction.filter(node_schedule))
        for node in nodes:
            if not isinstance(node, SchedulerNode):
                continue
            accesses = tuple(
                (dep.index, tuple(dep.ranges.items()))
                for dep in node.read_writes.reads_and_writes()
                if isinstance(dep, MemoryDep)
            )
            key = (tuple(map(tuple, node.get_ranges())), accesses, pointwise_numel, reduction_numel)
            if key not in scope.tilings:
                hopeless = any(_matches_forever(index, [name for name, _ in ranges]) for index, ranges in accesses)
                with phase(Phase.TILINGS):
                    found = [] if hopeless else super().get_nd_tilings([node], pointwise_numel, reduction_numel)
                scope.tilings[key] = found
            tilings.update(dict.fromkeys(scope.tilings[key]))
        return sorted(tilings, key=len, reverse=True)


@functools.cache
def _match_only_blocks() -> None:
    """Have Inductor compare an index with its pattern of blocks only where it can match.

    The pattern is a sum of quotients and remainders of the variable. SymPy takes 10 to 50 ms to find that an index
    without any does not match. Inductor is as it was wherever no graph of torchport's is compiled.
    """
    stock: Callable[..., Any] = BlockPatternMatcher.match_mod_div_block_expr

    def match(index: sympy.Expr, index_var: sympy.Symbol, numel: sympy.Expr, num_dims: int) -> Any:
        plain = not any(index_var in part.free_symbols for part in index.atoms(FloorDiv, ModularIndexing))
        if current() is not None and plain and index_var in index.free_symbols:
            return None
        return stock(index, index_var, numel, num_dims)

    BlockPatternMatcher.match_mod_div_block_expr = match


def _matches_forever(index: sympy.Expr, names: Sequence[sympy.Symbol]) -> bool:
    """Whether matching an index takes minutes: its sizes are quotients of sizes, as those of ``F.unfold`` are."""
    quotients = index.count(FloorDiv) + index.count(ModularIndexing)
    return quotients > 6 and not index.free_symbols <= set(names)
