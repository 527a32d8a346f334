"""Inductor's table of decompositions, with torchport's in front where Inductor's give other answers than eager.

A decomposition of torchport's may return NotImplemented for operands that it is not about; Inductor's then applies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchport.inductor.upstream import division, dtypes, formulas, pooling, scans, selection, variance
from torchport.inductor.upstream.corrections import applies

__all__ = ["decompositions"]

_TABLES: dict[str, dict[Any, Callable[..., Any]]] = {
    **dtypes.DECOMPOSITIONS,
    **division.DECOMPOSITIONS,
    **variance.DECOMPOSITIONS,
    **scans.DECOMPOSITIONS,
    **pooling.DECOMPOSITIONS,
    **formulas.DECOMPOSITIONS,
}


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table for the settings that are in force: Inductor's depends on ``config.fallback_random``."""
    from torchport.inductor.compat import select_decomp_table

    table: dict[Any, Callable[..., Any]] = dict(select_decomp_table())
    for name, corrected in _TABLES.items():
        if applies(name):
            for operation, decomposition in corrected.items():
                table[operation] = _before(decomposition, table.get(operation))
    if applies("negative-indices"):
        for operation in selection.OPERATIONS:
            table[operation] = selection.without_negative(table[operation])
    for operation in variance.NORMALIZATIONS:
        if operation in table:
            table[operation] = _within_normalization(table[operation])
    return table


def _before(ours: Callable[..., Any], stock: Callable[..., Any] | None) -> Callable[..., Any]:
    def decomposition(*args: Any, **kwargs: Any) -> Any:
        result = ours(*args, **kwargs)
        return stock(*args, **kwargs) if result is NotImplemented and stock is not None else result

    return decomposition


def _within_normalization(stock: Callable[..., Any]) -> Callable[..., Any]:
    def decomposition(*args: Any, **kwargs: Any) -> Any:
        with variance.normalization():
            return stock(*args, **kwargs)

    return decomposition
