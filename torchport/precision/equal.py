"""Two launches of Triton kernels, as a user gives them, compared on payloads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchport.errors import OptionError
from torchport.numerics.algebra.equivalence import SEEDS, Equivalence, equivalence, with_counterexample
from torchport.numerics.algebra.user_launch import all_values, launch_of, tensor_names

__all__ = ["equal", "launch_of"]


def equal(a: Any, b: Any, seeds: int = SEEDS, *, order: bool = False, rows: bool = False) -> Equivalence:
    """Whether two launches compute the same algebra. ``order``, ``rows``: as of ``equivalence``.

    ``a``, ``b``: ``(kernel, grid, arguments)`` each, as of ``launch_of``. Their tensors are paired by name if both
    kernels have the same names, else by position. Raises OptionError for what is no launch, CompilationError for a
    kernel that Triton refuses.
    """
    first, second = _parts(a), _parts(b)
    names = [tensor_names(arguments) for _, _, arguments in (first, second)]
    if len(names[0]) != len(names[1]):
        raise OptionError(
            f"the kernels have {len(names[0])} and {len(names[1])} tensors: their results cannot be paired"
        )
    by_name = set(names[0]) == set(names[1])
    paired = [names[0], names[0] if by_name else names[1]]
    launches = [
        launch_of(*parts, {name: number for number, name in enumerate(names)})
        for parts, names in zip((first, second), paired, strict=True)
    ]
    found = equivalence(launches[0], launches[1], seeds, order=order, rows=rows)
    return found if order or rows else with_counterexample(found, launches[0], launches[1])


def _parts(case: Any) -> tuple[Any, Any, dict[str, Any]]:
    if not (isinstance(case, tuple) and len(case) == 3 and isinstance(case[2], Mapping)):
        raise OptionError("a case is (kernel, grid, arguments): a @triton.jit function, its grid, a dict of arguments")
    kernel, grid, arguments = case
    if not hasattr(kernel, "params"):
        raise OptionError(f"{kernel!r} is no @triton.jit function (of one that is tuned, take .fn)")
    return kernel, grid, all_values(kernel, arguments)
