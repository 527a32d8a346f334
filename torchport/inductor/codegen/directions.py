"""Along which dimensions tensors have their neighbours in memory, of those that loops go through as wholes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sympy

__all__ = ["FEW", "directions"]

FEW = 1 << 14
"""Elements; fewer stay in the first-level cache, in whatever order they are accessed."""


def directions(indices: Iterable[sympy.Expr], sizes: Mapping[Any, Any]) -> set[Any]:
    """The variables that neighbours follow each other along, of tensors that change with all of them.

    indices: into the tensors. sizes: of the loops' variables; those of size 1 are left out.
    """
    variables = [variable for variable, size in sizes.items() if size != 1]
    whole = [index for index in indices if all(index.has(variable) for variable in variables)]
    return {variable for index in whole for variable in variables if index.coeff(variable) == 1}
