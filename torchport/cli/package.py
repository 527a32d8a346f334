"""``torchport package``: a compiled model in one file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from inspect import signature
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchport.cli.model import load_model
from torchport.errors import OptionError

if TYPE_CHECKING:
    from torchport.packages import Example

__all__ = ["examples", "package"]

_MOST = 3
"""Sizes that may begin at 1."""

_DYNAMIC = re.compile(r"(\w+):(\d+)=([A-Za-z_]\w*)(?::(\d+))?(?::(\d+))?")


def package(model: str, output: Path, targets: str, dynamic: Sequence[str], weights: str) -> None:
    """Export and compile ``model`` (``FILE.py:FUNCTION``), write the package, and print its digest."""
    from torchport.packages import build

    module, inputs = load_model(model)
    first, *also = examples(dynamic, module, inputs)
    built = build(
        module,
        first.args,
        output,
        dynamic_shapes=first.dynamic_shapes,
        targets=targets.split(",") if targets else (),
        weights_file=None if weights == "inside" else output.parent / weights,
        also=also,
        name=model.rpartition(":")[2],
    )
    kernels = f"{built.kernels} kernels for {', '.join(built.targets)}"
    print(f"{built.path}: {built.bytes:,} bytes, {built.steps} steps, {kernels}")
    for reason in built.host:
        print(f"on the host, between copies: {reason}")
    print(f"sha256={built.sha256}")


def examples(options: Sequence[str], module: Any, inputs: Sequence[Any]) -> list[Example]:
    """The inputs with the sizes that ``--dynamic`` names, then those where one or more of them are 1.

    torch.export takes a size that changes for 2 or more; a range from 1 needs a program more. Raises OptionError.
    """
    import torch

    from torchport.packages import Example

    names = [*signature(getattr(module, "forward", module)).parameters][: len(inputs)]
    places: dict[str, list[tuple[int, int]]] = {}
    ranges: dict[str, tuple[int | None, int | None]] = {}
    for option in options:
        if (match := _DYNAMIC.fullmatch(option)) is None:
            raise OptionError(
                f"--dynamic {option!r} is not INPUT:DIMENSION=NAME[:LOWEST[:HIGHEST]], such as x:0=batch:1:64"
            )
        name, dimension, size, low, high = match.groups()
        index = int(name) if name.isdigit() else names.index(name) if name in names else len(inputs)
        if index >= len(inputs) or not isinstance(inputs[index], torch.Tensor):
            raise OptionError(f"--dynamic {option!r} names no tensor; the inputs are {', '.join(names) or 'none'}")
        if int(dimension) >= inputs[index].dim():
            raise OptionError(f"--dynamic {option!r}: {name} has {inputs[index].dim()} dimensions")
        place = (index, int(dimension))
        if any(place in others for others in places.values()):
            raise OptionError(f"--dynamic {option!r}: dimension {dimension} of {name} has a name already")
        places.setdefault(size, []).append(place)
        given = (None if low is None else int(low), None if high is None else int(high))
        before = ranges.setdefault(size, given)
        if given != (None, None) != before != given:
            raise OptionError(f"--dynamic {option!r}: {size} has another range already")
        if before == (None, None):
            ranges[size] = given
    if not options:
        return [Example(inputs)]
    limits = {size: _range(size, *given) for size, given in ranges.items()}
    ones = [size for size, (low, _) in limits.items() if low == 1]
    if len(ones) > _MOST:
        raise OptionError(f"{len(ones)} sizes begin at 1, and {_MOST} are the most; each doubles the programs")
    dims = {size: torch.export.Dim(size, min=max(low, 2), max=high) for size, (low, high) in limits.items()}
    chosen = (subset for count in range(len(ones) + 1) for subset in combinations(ones, count))
    return [_example(inputs, places, dims, fixed) for fixed in chosen]


def _range(size: str, low: int | None, high: int | None) -> tuple[int, int | None]:
    """The lowest and highest value of a size; without a lowest 2. Raises OptionError."""
    lowest = 2 if low is None else low
    if lowest < 1:
        raise OptionError(f"--dynamic: {size} begins at {lowest}, and a size that changes is 1 or more")
    if high is not None and high < max(lowest, 2):
        raise OptionError(f"--dynamic: {size} ends at {high}, and must reach {max(lowest, 2)} or more")
    return lowest, high


def _example(
    inputs: Sequence[Any], places: Mapping[str, list[tuple[int, int]]], dims: Mapping[str, Any], fixed: Sequence[str]
) -> Example:
    """The inputs with size 1 where a name is in ``fixed``; the others change, and are 2 or more."""
    import torch

    from torchport.packages import Example

    args = list(inputs)
    shapes: list[Any] = [{} if isinstance(value, torch.Tensor) else None for value in inputs]
    for size, where in places.items():
        for index, dimension in where:
            value = args[index]
            if size in fixed:
                args[index] = value.narrow(dimension, 0, 1).contiguous()
                continue
            shapes[index][dimension] = dims[size]
            if value.shape[dimension] == 1:
                args[index] = torch.cat([value, value], dimension)
    return Example(tuple(args), {}, tuple(shapes))
