"""Launches of Triton kernels, as a user gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchport.errors import CompilationError, OptionError
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.verdicts.replay import Argument
from torchport.ops.launch import ELEMENTS
from torchport.target import Target
from torchport.triton.source import last_line

__all__ = ["all_values", "launch_of", "tensor_names"]

_INT32 = 1 << 31


def launch_of(
    kernel: Any,
    grid: Any,
    arguments: Mapping[str, Any],
    numbers: Mapping[str, int] | None = None,
    target: Target | str = "cpu",
) -> AlgebraLaunch:
    """One launch.

    ``kernel``: a ``@triton.jit`` function. ``grid``: as Triton takes it, a tuple or a function of the arguments.
    ``arguments``: by name, tensors, numbers and values that are compiled in; defaults may be missing. ``numbers``: of
    storages, by the name of their tensor; default: in order. ``target``: what Triton's frontend makes the kernel for.

    Raises OptionError and CompilationError.
    """
    from triton.errors import TritonError

    from torchport.triton.compat import ASTSource
    from torchport.triton.ttir import ttir_from

    values = all_values(kernel, arguments)
    numbers = numbers or {name: number for number, name in enumerate(tensor_names(values))}
    constant = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
    signature = {
        name: "constexpr" if name in constant or value is None else _type(name, value) for name, value in values.items()
    }
    constants = {name: value for name, value in values.items() if signature[name] == "constexpr"}
    try:
        ttir = ttir_from(ASTSource(kernel, signature, constants, None), target=str(target))
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


def all_values(kernel: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
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


def tensor_names(arguments: Mapping[str, Any]) -> list[str]:
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
