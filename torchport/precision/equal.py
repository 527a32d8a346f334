"""Launches of Triton kernels, as a user gives them, to be compared on payloads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchport.errors import CompilationError, OptionError
from torchport.numerics.algebra.equivalence import SEEDS, Equivalence, equivalence, with_counterexample
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.verdicts.replay import Argument
from torchport.ops.launch import ELEMENTS
from torchport.triton.source import last_line

__all__ = ["equal", "launch_of"]

_INT32 = 1 << 31


def equal(a: Any, b: Any, seeds: int = SEEDS, *, order: bool = False, rows: bool = False) -> Equivalence:
    """Whether two launches compute the same algebra. ``order``, ``rows``: as of ``equivalence``.

    ``a``, ``b``: ``(kernel, grid, arguments)`` each, as of ``launch_of``. Their tensors are paired by name if both
    kernels have the same names, else by position. Raises OptionError for what is no launch, CompilationError for a
    kernel that Triton refuses.
    """
    first, second = _parts(a), _parts(b)
    names = [_tensors(arguments) for _, _, arguments in (first, second)]
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


def launch_of(
    kernel: Any, grid: Any, arguments: Mapping[str, Any], numbers: Mapping[str, int] | None = None
) -> AlgebraLaunch:
    """One launch.

    ``kernel``: a ``@triton.jit`` function. ``grid``: as Triton takes it, a tuple or a function of the arguments.
    ``arguments``: by name, tensors, numbers and values that are compiled in; defaults may be missing. ``numbers``: of
    storages, by the name of their tensor; default: in order.

    Raises OptionError and CompilationError.
    """
    from triton.errors import TritonError

    from torchport.triton.compat import ASTSource
    from torchport.triton.ttir import ttir_from

    values = _values(kernel, arguments)
    numbers = numbers or {name: number for number, name in enumerate(_tensors(values))}
    constant = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
    signature = {
        name: "constexpr" if name in constant or value is None else _type(name, value) for name, value in values.items()
    }
    constants = {name: value for name, value in values.items() if signature[name] == "constexpr"}
    try:
        ttir = ttir_from(ASTSource(kernel, signature, constants, None))
    except TritonError as error:
        raise CompilationError(f"Triton refuses the kernel: {last_line(error)}", kernel=kernel.__name__) from error
    known, storages = [], {}
    for name, value in values.items():
        if not isinstance(value, torch.Tensor):
            known.append(Argument(name, signature[name], value if isinstance(value, (int, float)) else None))
            continue
        whole = torch.tensor([], dtype=value.dtype).set_(value.untyped_storage())
        storages[numbers[name]] = whole
        known.append(
            Argument(name, signature[name], None, numbers[name], value.dtype, tuple(value.shape), value.stride(),
                     int(value.storage_offset()))
        )  # fmt: skip
    sizes = grid(dict(values)) if callable(grid) else grid
    sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    x, y, z = (*sizes, 1, 1)[:3]
    return AlgebraLaunch(ttir, tuple(known), (int(x), int(y), int(z)), storages)


def _parts(case: Any) -> tuple[Any, Any, dict[str, Any]]:
    if not (isinstance(case, tuple) and len(case) == 3 and isinstance(case[2], Mapping)):
        raise OptionError("a case is (kernel, grid, arguments): a @triton.jit function, its grid, a dict of arguments")
    kernel, grid, arguments = case
    if not hasattr(kernel, "params"):
        raise OptionError(f"{kernel!r} is no @triton.jit function (of one that is tuned, take .fn)")
    return kernel, grid, _values(kernel, arguments)


def _values(kernel: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments in the order of the kernel's parameters."""
    known = {parameter.name for parameter in kernel.params}
    if unknown := sorted(set(arguments) - known):
        raise OptionError(f"kernel {kernel.__name__} has no argument {unknown[0]!r}")
    values = {}
    for parameter in kernel.params:
        if parameter.name not in arguments and not parameter.has_default:
            raise OptionError(f"kernel {kernel.__name__} needs the argument {parameter.name!r}")
        values[parameter.name] = arguments.get(parameter.name, parameter.default if parameter.has_default else None)
    return values


def _tensors(arguments: Mapping[str, Any]) -> list[str]:
    return [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]


def _type(name: str, value: Any) -> str:
    """Triton's type of an argument."""
    if isinstance(value, torch.Tensor):
        if value.dtype not in ELEMENTS:
            raise OptionError(f"argument {name}: kernels have no tensors of {value.dtype}")
        return "*" + ELEMENTS[value.dtype]
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "i32" if -_INT32 <= value < _INT32 else "i64"
    if isinstance(value, float):
        return "fp32"
    raise OptionError(f"argument {name} is {type(value).__name__}: kernels take tensors and numbers")
